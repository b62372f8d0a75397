"""Loans and parts between two ends of a connection: who gives what back and when, and what a broken end leaves."""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.schema.errors import ProtocolError
from salver.transport import large_payloads
from salver.transport.mappings import Mapping
from salver.transport.segments import SegmentPool
from salver.transport.wire import (
    CALL,
    FORGET,
    PART,
    PARTS,
    RELEASE,
    SHARED,
    UNREADABLE,
    PayloadHead,
    SharedMemory,
)
from tests.unit.transport.large import Pair, connect, files_of_segments, maps_of_segments, pack_in, settle

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a segment or a mapping."""
    before = len(files_of_segments()), len(maps_of_segments())
    yield
    after = len(files_of_segments()), len(maps_of_segments())
    assert after <= before


@pytest.fixture
async def pair() -> Any:
    pair = await connect()
    yield pair
    await pair.close()


def array(value: float = 1.0, size_bytes: int = SIZE) -> Any:
    return np.full(size_bytes // 8, float(value))


async def test_a_shared_value_arrives_without_its_bytes_on_the_connection(pair: Pair) -> None:
    pair.near.send({"numbers": array(3)})
    value = await pair.far.next()
    assert (value["numbers"] == 3).all()
    assert pair.far.kinds == [CALL]


async def test_the_receiver_may_write_and_nobody_sees_it(pair: Pair) -> None:
    payload = array(3)
    pair.near.send(payload)
    value = await pair.far.next()
    value += 1
    assert (value == 4).all()
    assert (payload == 3).all()
    segment = next(iter(pair.pool._all.values()))
    assert bytes(segment.view[-8:]) == bytes(8)
    assert np.frombuffer(segment.view, np.float64, 1000, 4096)[500] == 3


async def test_a_loan_comes_back_when_the_last_view_is_gone(pair: Pair) -> None:
    pair.near.send([array(1), array(2)])
    value = await pair.far.next()
    part = value[1][10:20]
    del value
    await settle()
    assert pair.near.large.num_lent == 1
    assert (part == 2).all()
    del part
    await settle()
    assert pair.near.large.num_lent == 0
    assert pair.near.kinds == [RELEASE]


async def test_a_thread_may_drop_the_last_view(pair: Pair) -> None:
    pair.near.send(array())
    values = [await pair.far.next()]
    thread = threading.Thread(target=values.clear)
    thread.start()
    thread.join()
    await settle()
    assert pair.near.large.num_lent == 0


async def test_one_segment_and_one_mapping_serve_many_calls(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    make = Mapping.__init__

    def count(*args: Any) -> None:
        nonlocal made
        made += 1
        make(*args)

    monkeypatch.setattr(Mapping, "__init__", count)
    monkeypatch.setattr(Mapping, "is_untouched", lambda self: True)
    for number in range(50):
        pair.near.send(array(number))
        value = await pair.far.next()
        assert (value == number).all()
        del value
        await settle()
    assert pair.pool.num_segments == 1
    assert made == 1


async def test_a_mapping_that_was_written_to_is_not_used_again(pair: Pair) -> None:
    for number in range(20):
        pair.near.send(array(number))
        value = await pair.far.next()
        assert (value == number).all()
        value[number * 1000] = -1
        del value
        await settle()
    assert pair.pool.num_segments == 1


async def test_without_the_kernels_help_no_mapping_is_used_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> int:
        raise OSError(errno.ENOTTY, "old kernel")

    monkeypatch.setattr(fcntl, "ioctl", unknown)
    for number in range(5):
        pair.near.send(array(number))
        value = await pair.far.next()
        assert (value == number).all()
        value[0] = -1
        del value
        await settle()
        assert not pair.far.large._mappings


async def test_values_that_are_held_at_once_never_share_memory(pair: Pair) -> None:
    values = []
    for number in range(10):
        pair.near.send(array(number), stream=number + 1)
        values.append(await pair.far.next())
        if number == 5:
            values[2] = None
            await settle()
    assert [None if value is None else value[0] for value in values] == [0, 1, None, 3, 4, 5, 6, 7, 8, 9]
    assert len(maps_of_segments()) >= 9


async def test_a_payload_that_nobody_takes_out_is_given_back(pair: Pair) -> None:
    pair.near.send(array())
    await settle()
    pair.far.arrived.get_nowait()
    await settle()
    assert pair.near.large.num_lent == 0
    pair.near.send(array(2))
    assert (await pair.far.next() == 2).all()


async def test_a_broken_connection_spoils_what_was_lent_and_leaves_what_was_borrowed(pair: Pair) -> None:
    another = await connect(pair.pool)
    pair.near.send(array(7))
    value = await pair.far.next()
    pair.transport.cut()
    await settle()
    for number in range(3):
        another.near.send(array(number))
        await another.far.next()
        await settle()
    assert (value == 7).all()
    assert (another.pool.num_segments, another.pool.num_watched) == (1, 2)
    del value
    await another.close()


async def test_a_payload_may_be_sent_to_two_and_its_segment_outlives_the_first(pair: Pair) -> None:
    another = await connect(pair.pool)
    payload = pack_in(pair.pool, array(5))
    pair.near.large.send(CALL, 1, b"", payload)
    another.near.large.send(CALL, 1, b"", payload)
    del payload
    first, second = await pair.far.next(), await another.far.next()
    first[:] = 6
    del first
    await settle()
    assert (second == 5).all()
    assert pair.pool.num_segments == 1
    del second
    await another.close()


async def test_who_holds_a_loan_for_long_keeps_the_memory_and_the_sender_forgets_it(pair: Pair) -> None:
    pair.near.send(array(8))
    value = await pair.far.next()
    now = asyncio.get_running_loop().time()
    pair.far.large.sweep(now + large_payloads.KEPT_S - 1)
    assert pair.near.large.num_lent == 1
    pair.far.large.sweep(now + large_payloads.KEPT_S + 1)
    await settle()
    pair.pool.tidy(now)
    assert (pair.near.large.num_lent, pair.pool.num_segments) == (0, 0)
    assert (value == 8).all()
    del value
    await settle()
    assert pair.near.kinds == [RELEASE], "once"
    pair.near.send(array(9))
    assert (await pair.far.next() == 9).all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_loan_that_a_forked_child_may_still_read_is_never_written_to_again(pair: Pair) -> None:
    pair.near.send(array(4))
    value = await pair.far.next()
    to_parent, from_child = os.pipe()
    to_child, from_parent = os.pipe()
    child = os.fork()
    if not child:
        os.read(to_child, 1)
        os.write(from_child, b"y" if (value == 4).all() else b"n")
        os._exit(0)
    del value
    await settle()
    pair.near.send(array(5))
    other = await pair.far.next()
    os.write(from_parent, b"x")
    assert os.read(to_parent, 1) == b"y"
    os.waitpid(child, 0)
    for each in (to_parent, from_child, to_child, from_parent):
        os.close(each)
    assert (other == 5).all()


async def test_segments_that_are_closed_are_forgotten_by_readers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mapping, "is_untouched", lambda self: True)
    pair.near.send(array())
    await pair.far.next()
    await settle()
    assert len(pair.far.large._mappings) == 1
    pair.pool.tidy(0.0)
    pair.pool.tidy(1e9)
    await settle()
    assert pair.far.large._mappings == {}
    assert FORGET in pair.far.kinds
    assert maps_of_segments() == []


# What cannot be shared


async def test_a_receiver_that_cannot_map_gets_the_payload_in_parts(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    pair.near.send(array(3))
    assert (await pair.far.next() == 3).all()
    assert pair.near.kinds == [UNREADABLE]
    pair.near.send(array(4))
    assert (await pair.far.next() == 4).all()
    assert pair.near.kinds == [UNREADABLE], "from then on all come in parts"
    await settle()
    assert pair.near.large.num_lent == 0


async def test_what_is_no_longer_wanted_is_not_sent_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(*_: Any) -> Any:
        raise FileNotFoundError(errno.ENOENT, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    pair.near.wanted = False
    pair.near.send(array(3))
    await settle()
    assert PART not in pair.far.kinds
    assert pair.near.large.num_lent == 0


async def test_a_number_that_is_another_files_is_not_mistaken_for_the_segment(pair: Pair) -> None:
    file = os.open("/dev/null", os.O_RDONLY)
    where = SharedMemory(1, 1, os.getpid(), file, 12345)
    try:
        with pytest.raises(FileNotFoundError):
            Mapping(where, SIZE)
        with pytest.raises(OSError, match="No such file"):
            Mapping(SharedMemory(1, 1, os.getpid(), 1 << 20, 12345), SIZE)
    finally:
        os.close(file)


async def test_a_segment_that_is_smaller_than_said_is_an_error(pair: Pair) -> None:
    pair.near.send(array())
    segment = next(iter(pair.pool._all.values()))
    where = SharedMemory(1, segment.number, os.getpid(), segment.file, segment.inode)
    with pytest.raises(ProtocolError, match="is not what it is said to be"):
        Mapping(where, segment.capacity_bytes + 1)


async def test_a_file_that_may_shrink_is_an_error(pair: Pair) -> None:
    file = os.memfd_create("shrinks", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, SIZE)
    try:
        with pytest.raises(ProtocolError, match="may shrink"):
            Mapping(SharedMemory(1, 1, os.getpid(), file, os.fstat(file).st_ino), SIZE)
    finally:
        os.close(file)


class NoPool(SegmentPool):
    """Has no shared memory to give."""

    def take(self, size_bytes: int) -> None:
        """Give nothing."""


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(65536, 400_000), min_size=1, max_size=4), st.booleans())
def test_values_in_parts_arrive_in_order_between_other_frames(sizes: list[int], pooled: bool) -> None:
    async def run() -> None:
        pair = await connect(SegmentPool() if pooled else NoPool())
        for number, size in enumerate(sizes):
            pair.near.send([np.full(size, number, np.uint8), b"x" * size], stream=number + 1)
        for number, size in enumerate(sizes):
            numbers, data = await pair.far.next()
            assert len(numbers) == len(data) == size
            assert (numbers == number).all()
            numbers[0] = 9
        del numbers
        await pair.close()

    asyncio.run(run())


HEAD = msgspec.msgpack.encode
HERE = SharedMemory(1, 1, 1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "flags", "header", "body"),
    [
        (CALL, SHARED, b"", b"junk"),
        (CALL, SHARED, b"", HEAD(PayloadHead([5]))),
        (CALL, SHARED, b"", HEAD(PayloadHead([], HERE))),
        (CALL, SHARED, b"", HEAD(PayloadHead([5, -70], HERE))),
        (CALL, PARTS, b"", HEAD(PayloadHead([5]))),
        (PART, 0, b"", b"without a beginning"),
        (PART, 0, b"123", b"half a number"),
        (PART, 0, bytes(8), b"of nothing"),
        (PART, 0, b"\x05" + bytes(7), b"more than five"),
        (PART, 0, b"\xff" * 8, b"of too much"),
        (RELEASE, 0, b"", b""),
        (FORGET, 0, b"12", b""),
        (UNREADABLE, 0, b"", b""),
    ],
)
async def test_a_malformed_frame_breaks_its_connection_and_nothing_else(
    pair: Pair, kind: int, flags: int, header: bytes, body: bytes
) -> None:
    pair.near.connection.send(kind, 1, header, body, flags)
    await settle()
    assert isinstance(pair.far.error, ProtocolError)


async def test_parts_that_do_not_add_up_are_an_error(pair: Pair) -> None:
    pair.near.connection.send(PART, 1, b"\x05" + bytes(7), b"12")
    pair.near.connection.send(CALL, 1, b"", HEAD(PayloadHead([5])), PARTS)
    await settle()
    assert isinstance(pair.far.error, ProtocolError)


async def test_answers_for_loans_that_are_not_known_change_nothing(pair: Pair) -> None:
    for kind in (RELEASE, FORGET, UNREADABLE):
        pair.near.connection.send(kind, 0, b"\x63" + bytes(7))
    await settle()
    assert pair.far.error is None
