"""The pool of shared memory: what is used again, what is closed and when, and that nothing is left."""

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from salver.transport import segments
from salver.transport.segments import IDLE_S, MIN_SEGMENT_SIZE_BYTES, Segment, SegmentPool, process_pool
from tests.unit.transport.large import files_of_segments

MB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a segment open."""
    before = set(files_of_segments())
    yield
    assert set(files_of_segments()) <= before


class Reader:
    """A connection that remembers what it was told to forget."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []
        self.sweeps = 0

    def forget(self, number: int) -> None:
        """Part of SegmentReader."""
        self.forgotten.append(number)

    def sweep(self, now: float) -> None:
        """Part of SegmentReader."""
        self.sweeps += 1


@pytest.fixture
async def reader() -> Reader:
    return Reader()


@pytest.fixture
async def pool(reader: Reader) -> Any:
    pool = SegmentPool()
    pool.join(reader)
    yield pool
    pool.leave(reader)


def take(pool: SegmentPool, size_bytes: int) -> Segment:
    segment = pool.take(size_bytes)
    assert segment is not None
    return segment


async def test_a_segment_that_came_back_is_used_again_for_what_is_about_as_large(pool: SegmentPool) -> None:
    first = take(pool, 3 * MB)
    pool.give(first, spoiled=False)
    second = take(pool, 4 * MB)
    assert second is first
    assert take(pool, 4 * MB) is not first, "it is in use"
    for each in list(pool._all.values()):
        pool.give(each, spoiled=False)


async def test_memory_is_reserved_for_what_is_written_and_no_more(pool: SegmentPool) -> None:
    segment = take(pool, 5 * MB)
    assert segment.capacity_bytes == 8 * MB
    assert os.fstat(segment.file).st_blocks * 512 == 5 * MB
    pool.give(segment, spoiled=False)
    take(pool, 6 * MB)
    assert os.fstat(segment.file).st_blocks * 512 == 6 * MB
    pool.give(segment, spoiled=False)


async def test_a_spoiled_segment_is_closed_and_readers_are_told(pool: SegmentPool, reader: Reader) -> None:
    segment = take(pool, MB)
    pool.give(segment, spoiled=True)
    assert take(pool, MB) is not segment
    assert reader.forgotten == [segment.number]
    for each in list(pool._all.values()):
        pool.give(each, spoiled=False)


async def test_what_is_idle_for_long_is_closed(pool: SegmentPool, reader: Reader) -> None:
    old, used = take(pool, MB), take(pool, MB)
    pool.give(old, spoiled=False)
    pool.tidy(100.0)
    pool.tidy(100.0 + IDLE_S - 0.1)
    assert reader.forgotten == []
    pool.tidy(100.0 + IDLE_S)
    assert reader.forgotten == [old.number]
    assert pool.num_segments == 1
    pool.give(used, spoiled=False)


async def test_what_is_used_in_between_is_not_idle(pool: SegmentPool, reader: Reader) -> None:
    segment = take(pool, MB)
    for now in range(0, 50, 5):
        pool.give(segment, spoiled=False)
        pool.tidy(float(now))
        assert take(pool, MB) is segment
    pool.give(segment, spoiled=False)
    assert reader.forgotten == []


async def test_idle_memory_is_bounded(pool: SegmentPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_IDLE_SIZE_BYTES", 10 * MB)
    taken = [take(pool, 4 * MB) for _ in range(6)]
    for each in taken:
        pool.give(each, spoiled=False)
    pool.tidy(1.0)
    assert pool.num_segments == 2
    larger = take(pool, 11 * MB)
    pool.give(larger, spoiled=False)
    pool.tidy(1.0)
    assert larger.number not in pool._all


async def test_there_are_only_so_many_segments(pool: SegmentPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 3)
    taken = [take(pool, MB) for _ in range(3)]
    assert pool.take(MB) is None
    pool.give(taken[0], spoiled=False)
    assert take(pool, 8 * MB).capacity_bytes == 8 * MB, "an idle one of another size makes place"
    assert pool.num_segments == 3
    for each in list(pool._all.values()):
        pool.give(each, spoiled=False)


async def test_what_is_small_gets_no_segment(pool: SegmentPool) -> None:
    assert pool.take(MIN_SEGMENT_SIZE_BYTES - 1) is None


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate", "posix_fallocate"])
async def test_without_memory_or_descriptors_there_is_no_segment(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert pool.take(MB) is None
    segment = take(pool, MB)
    segment.view[:MB] = bytes(MB)
    pool.give(segment, spoiled=False)


async def test_where_there_is_no_memfd_there_is_no_segment(pool: SegmentPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert pool.take(MB) is None


async def test_the_last_connection_takes_all_idle_segments_with_it(reader: Reader) -> None:
    pool = SegmentPool()
    pool.join(reader)
    kept = take(pool, MB)
    pool.give(take(pool, MB), spoiled=False)
    pool.leave(reader)
    assert pool.num_segments == 1
    pool.give(kept, spoiled=False)
    assert pool.num_segments == 0, "nobody would tidy"


async def test_the_pool_tidies_by_itself(pool: SegmentPool, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "IDLE_S", 0.0)
    pool.give(take(pool, MB), spoiled=False)
    pool._sweep(asyncio.get_running_loop())
    assert (pool.num_segments, reader.sweeps) == (0, 1)


async def test_threads_never_get_the_same_segment(pool: SegmentPool) -> None:
    errors: list[str] = []

    def work(seed: int) -> None:
        random = Random(seed)
        for number in range(200):
            segment = pool.take(random.choice([MB // 4, MB // 2, MB]))
            if segment is None:
                continue
            mark = f"{seed}-{number}".encode()
            segment.view[: len(mark)] = mark
            if bytes(segment.view[: len(mark)]) != mark:
                errors.append(str(mark))
            pool.give(segment, spoiled=random.random() < 0.1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_forked_child_has_none_of_its_parents_segments(pool: SegmentPool) -> None:
    own = process_pool()
    segment = take(own, MB)
    segment.view[:5] = b"hello"
    child = os.fork()
    if not child:
        clean = process_pool() is not own and not files_of_segments()
        os._exit(0 if clean else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(segment.view[:5]) == b"hello"
    own.give(segment, spoiled=False)
