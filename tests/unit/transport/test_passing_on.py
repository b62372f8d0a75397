"""Payloads that whoever was sent them sends on: where they are, not what they are."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from salver.transport import large_payloads
from salver.transport.mappings import MAX_OPEN_FILES, Mapping
from salver.transport.payloads import Arrival
from salver.transport.wire import CALL, PART, RELEASE, SPOILED
from tests.unit.transport.large import Pair, connect, files_of_segments, maps_of_segments, settle

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a segment or a mapping."""
    before = len(files_of_segments()), len(maps_of_segments())
    yield
    gc.collect()
    after = len(files_of_segments()), len(maps_of_segments())
    assert after <= before


class Chain(NamedTuple):
    """Two connections: what arrives at the far end of the first is sent on at the near end of the second."""

    first: Pair
    second: Pair

    async def arrive(self, value: float = 1.0) -> Arrival:
        """Send an array to the middle."""
        self.first.near.send(np.full(SIZE // 8, value))
        _, arrival = await asyncio.wait_for(self.first.far.arrived.get(), timeout=5)
        return arrival

    def send_on(self, arrival: Arrival) -> None:
        """Send it from the middle to the end."""
        self.second.near.large.send(CALL, 1, b"", arrival)


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    first = await connect()
    chain = Chain(first, await connect(first.pool))
    yield chain
    await chain.second.close()
    await chain.first.close()


async def test_what_is_sent_on_is_mapped_at_the_end_only(chain: Chain) -> None:
    chain.send_on(await chain.arrive(3))
    assert maps_of_segments() == [] or all("rw-s" in each for each in maps_of_segments())
    value = await chain.second.far.next()
    assert (value == 3).all()
    assert PART not in chain.second.far.kinds


async def test_the_middle_gives_it_back_when_the_end_does(chain: Chain) -> None:
    chain.send_on(await chain.arrive())
    value = await chain.second.far.next()
    await settle()
    assert (chain.first.near.large.num_lent, chain.second.near.large.num_lent) == (1, 1)
    del value
    await settle()
    assert (chain.first.near.large.num_lent, chain.second.near.large.num_lent) == (0, 0)
    assert chain.first.pool.num_segments == 1


async def test_what_the_middle_writes_is_not_seen_at_the_end(chain: Chain) -> None:
    arrival = await chain.arrive(4)
    chain.send_on(arrival)
    mine = arrival.load()
    mine[:] = 5
    chain.send_on(arrival)
    for _ in range(2):
        assert (await chain.second.far.next() == 4).all()
    del arrival, mine


async def test_a_segment_that_the_end_keeps_for_long_is_never_written_to_again(chain: Chain) -> None:
    chain.send_on(await chain.arrive(6))
    value = await chain.second.far.next()
    chain.second.far.large.sweep(asyncio.get_running_loop().time() + large_payloads.KEPT_S + 1)
    await settle()
    assert chain.first.near.large.num_lent == 0
    other = await chain.arrive(7)
    assert (value == 6).all()
    del other


async def test_a_connection_that_breaks_at_the_end_spoils_the_segment_at_the_beginning(chain: Chain) -> None:
    seen = []
    on_frame = chain.first.near.on_frame

    def note(kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        seen.append((kind, flags))
        on_frame(kind, flags, stream, load, header, body)

    chain.first.near.on_frame = note  # type: ignore[method-assign]
    chain.send_on(await chain.arrive(8))
    value = await chain.second.far.next()
    chain.second.transport.cut()
    await settle()
    assert seen == [(RELEASE, SPOILED)]
    assert (value == 8).all()
    del value


async def test_what_is_held_can_be_sent_on_after_its_owner_is_gone(chain: Chain) -> None:
    arrival = await chain.arrive(9)
    chain.first.transport.cut()
    await settle()
    chain.send_on(arrival)
    assert (await chain.second.far.next() == 9).all()
    assert PART not in chain.second.far.kinds
    del arrival


async def test_the_end_keeps_no_mapping_of_a_third_processs_segment(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mapping, "is_untouched", lambda self: True)
    for value in range(3):
        chain.send_on(await chain.arrive(value))
        assert (await chain.second.far.next() == value).all()
        await settle()
    assert chain.second.far.large._mappings == {}


async def test_an_end_that_cannot_map_gets_it_in_parts(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    arrival = await chain.arrive(2)

    def out_of_reach(*_: Any) -> Any:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    chain.send_on(arrival)
    assert (await chain.second.far.next() == 2).all()
    assert PART in chain.second.far.kinds
    # In parts it came; in parts it goes on.
    chain.first.near.large._lends = False
    chain.send_on(await chain.arrive(3))
    assert (await chain.second.far.next() == 3).all()
    del arrival


async def test_few_payloads_are_held_by_their_files(chain: Chain) -> None:
    before = Mapping._num_open_files
    arrivals = [await chain.arrive(value) for value in range(MAX_OPEN_FILES + 10)]
    assert Mapping._num_open_files - before <= MAX_OPEN_FILES
    assert [arrival.load()[0] for arrival in arrivals] == list(range(MAX_OPEN_FILES + 10))
    assert Mapping._num_open_files == before
    arrivals.clear()
