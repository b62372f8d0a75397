"""Shared memory that this process writes and others read: anonymous files, used again and again.

A segment is a memfd: it has no name, so nothing is left however its users die. A fresh one costs eight times as much as
copying into one whose pages exist, so segments are pooled: kept while they are in use and for a short time after.
"""

import asyncio
import fcntl
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Protocol

MIN_SEGMENT_SIZE_BYTES = 64 * 1024
"""Smaller payloads take as long by socket."""

MAX_SEGMENTS = 128
"""Each takes two file descriptors; above it, payloads go by socket."""

MAX_IDLE_SIZE_BYTES = 1 << 30
IDLE_S = 10.0

_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0x2) | getattr(fcntl, "F_SEAL_GROW", 0x4) | getattr(fcntl, "F_SEAL_SEAL", 0x1)


class Segment:
    """A piece of shared memory; its pages are reserved when they are first written to.

    Attributes:
        number: Its name among the pool's segments; never used twice.
        file: Its file descriptor.
        reserved_size_bytes: How much of it takes memory.
        idle_since: Seconds of the loop's clock; None while it is in use, or was not looked at since.
    """

    def __init__(self, number: int, capacity_bytes: int) -> None:
        self.number = number
        self.capacity_bytes = capacity_bytes
        self.reserved_size_bytes = 0
        self.idle_since: float | None = None
        self.file = os.memfd_create(f"salver-{number}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.file, capacity_bytes)
            # A reader can rely on the size, so that no access of its own ends in SIGBUS.
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _SEALS)
            self.inode = os.fstat(self.file).st_ino
            self._map = mmap.mmap(self.file, capacity_bytes)
        except BaseException:
            os.close(self.file)
            raise
        # A forked child has no use for it, and would keep the memory.
        self._map.madvise(mmap.MADV_DONTFORK)
        self.view = memoryview(self._map)

    def reserve(self, size_bytes: int) -> None:
        """Make sure that so many bytes can be written.

        Raises:
            OSError: There is no memory.
        """
        if size_bytes > self.reserved_size_bytes:
            os.posix_fallocate(self.file, self.reserved_size_bytes, size_bytes - self.reserved_size_bytes)
            self.reserved_size_bytes = size_bytes

    def close(self) -> None:
        """Give the memory back, as far as this process goes: readers keep what they have mapped."""
        self.view.release()
        self._map.close()
        os.close(self.file)


class SegmentReader(Protocol):
    """A connection whose other end may have segments mapped."""

    def forget(self, number: int) -> None:
        """The segment will not be used again."""

    def sweep(self, now: float) -> None:
        """Do what is to be done from time to time."""


class SegmentPool:
    """The segments of a process.

    Segments are taken and given back from any thread; the rest belongs to the event loop.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._all: dict[int, Segment] = {}
        self._idle: dict[int, list[Segment]] = {}
        # Filled by finalizers, which may run while this very thread holds the lock.
        self._returned: deque[tuple[Segment, bool]] = deque()
        self._readers: set[SegmentReader] = set()
        self._watching: asyncio.AbstractEventLoop | None = None

    @property
    def num_segments(self) -> int:
        """Return how many segments exist."""
        return len(self._all)

    @property
    def num_watched(self) -> int:
        """Return how many connections may have segments mapped."""
        return len(self._readers)

    def take(self, size_bytes: int) -> Segment | None:
        """Return a segment with room for so much, or None: none can be had, or it is not worth it."""
        if size_bytes < MIN_SEGMENT_SIZE_BYTES or not hasattr(os, "memfd_create"):
            return None
        capacity = 1 << (size_bytes - 1).bit_length()
        with self._lock:
            self._sort_returned()
            stack = self._idle.get(capacity)
            segment = stack.pop() if stack else self._new(capacity)
            if segment is None:
                return None
            segment.idle_since = None
        try:
            segment.reserve(size_bytes)
        except OSError:
            self.give(segment, spoiled=False)
            return None
        return segment

    def give(self, segment: Segment, *, spoiled: bool) -> None:
        """Take a segment back.

        Args:
            spoiled: Somebody may still look at it, so nothing else may be written there.
        """
        if self._readers:
            self._returned.append((segment, spoiled))
        elif self._all.pop(segment.number, None) is not None:
            # There is no connection, so nobody would tidy.
            segment.close()

    def tidy(self, now: float) -> None:
        """Close what was idle for long, and what is too much."""
        with self._lock:
            self._sort_returned()
            ages = []
            excess = -MAX_IDLE_SIZE_BYTES
            for each in (each for stack in self._idle.values() for each in stack):
                each.idle_since = now if each.idle_since is None else each.idle_since
                ages.append((now - each.idle_since, each))
                excess += each.reserved_size_bytes
            for age, each in sorted(ages, key=lambda pair: -pair[0]):
                if age >= IDLE_S or excess > 0:
                    excess -= each.reserved_size_bytes
                    self._idle[each.capacity_bytes].remove(each)
                    self._close(each)

    def join(self, reader: SegmentReader) -> None:
        """Tell a connection of segments that are closed, and tidy on its loop for as long as there are any."""
        self._readers.add(reader)
        self._watch(asyncio.get_running_loop())

    def leave(self, reader: SegmentReader) -> None:
        """A connection is gone; the last one takes all idle segments with it."""
        self._readers.discard(reader)
        if not self._readers:
            with self._lock:
                self._sort_returned()
                for each in self._drain_idle():
                    self._close(each)

    def abandon(self) -> None:
        """Let go of everything, in a forked child: all of it is the parent's."""
        for segment in self._all.values():
            with suppress(OSError, BufferError):
                segment.close()
        self._all.clear()

    def _new(self, capacity_bytes: int) -> Segment | None:
        if len(self._all) >= MAX_SEGMENTS and not self._make_place():
            return None
        try:
            segment = Segment(next(self._numbers), capacity_bytes)
        except (OSError, OverflowError):
            return None
        self._all[segment.number] = segment
        return segment

    def _make_place(self) -> bool:
        """Close an idle segment of another size."""
        for stack in self._idle.values():
            if stack:
                self._close(stack.pop(0))
                return True
        return False

    def _sort_returned(self) -> None:
        while self._returned:
            segment, spoiled = self._returned.popleft()
            if spoiled or segment.reserved_size_bytes > MAX_IDLE_SIZE_BYTES:
                self._close(segment)
            else:
                self._idle.setdefault(segment.capacity_bytes, []).append(segment)

    def _drain_idle(self) -> Iterator[Segment]:
        for stack in self._idle.values():
            while stack:
                yield stack.pop()

    def _close(self, segment: Segment) -> None:
        del self._all[segment.number]
        segment.close()
        for reader in tuple(self._readers):
            reader.forget(segment.number)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watching is None or self._watching.is_closed():
            self._watching = loop
            loop.call_later(IDLE_S / 2, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = None
        now = loop.time()
        for reader in tuple(self._readers):
            reader.sweep(now)
        self.tidy(now)
        if self._readers:
            self._watch(loop)


class _OfProcess:
    pool = SegmentPool()


def process_pool() -> SegmentPool:
    """Return the pool of this process."""
    return _OfProcess.pool


def _renew() -> None:
    former, _OfProcess.pool = _OfProcess.pool, SegmentPool()
    former.abandon()


os.register_at_fork(after_in_child=_renew)
