"""Time as an argument: loops take a Clock, deciding code takes `now`."""

import asyncio
import heapq
import time
from itertools import count
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now(self) -> float:
        """Return monotonic time in seconds; only differences mean anything."""

    async def sleep_until(self, when: float) -> None:
        """Return once `now()` is at least `when`."""


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        """Sleep on the running event loop until `when`."""
        # Event loops round their timers, some of them down.
        while True:
            await asyncio.sleep(max(0.0, when - time.monotonic()))
            if time.monotonic() >= when:
                return


class ManualClock:
    """A clock for tests: time stands still until `advance` moves it."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return the time the last `advance` left behind."""
        return self._now

    async def sleep_until(self, when: float) -> None:
        """Wait until `advance` has moved the clock to `when`."""
        if when <= self._now:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._order), waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        """Move time forward and wake everyone whose time has come, in order."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)


def wall_time_s() -> float:
    """Return seconds since the epoch, for people and logs only; never for deadlines."""
    return time.time()
