"""Health checks: the user's `check_health`, again and again, and what the controller is told of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from salver.lib.clock import Clock
from salver.lib.tracebacks import user_traceback
from salver.schema.errors import SalverError

JITTER = 0.1
"""Share by which periods vary, so that the replicas of a deployment do not check themselves in step; Ray Serve's."""


class Chance(Protocol):
    """What is needed of `random`."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between two others."""


class HealthChecks:
    """Checks one replica.

    Args:
        check: Raises where the replica is not healthy.
        period_s: Seconds between checks.
        timeout_s: Seconds that a check may take.
        held_s: Returns how long, in all, the event loop was held so far: time in which no check could finish.
        tell: Told after each check how many failed in a row, and what the last one raised.

    Attributes:
        failures: Checks that failed in a row.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        *,
        period_s: float,
        timeout_s: float,
        held_s: Callable[[], float],
        tell: Callable[[int, str], None],
    ) -> None:
        self._check = check
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._held_s = held_s
        self._tell = tell
        self.failures = 0

    async def run(self, clock: Clock, chance: Chance) -> None:
        """Check and tell, for ever."""
        while True:
            await self.check_and_tell()
            wait_s = self._period_s * chance.uniform(1 - JITTER, 1 + JITTER)
            await clock.sleep_until(clock.now() + wait_s)

    async def check_and_tell(self) -> None:
        """Check once and tell what came of it."""
        try:
            await self.check()
        except Exception as error:  # noqa: BLE001 - user code may raise anything, and that is its answer
            self.failures += 1
            self._tell(self.failures, user_traceback(error))
        else:
            self.failures = 0
            self._tell(0, "")

    async def check(self) -> None:
        """Check once.

        Raises:
            TimeoutError: It took too long.
            Exception: What user code raised.
        """
        loop = asyncio.get_running_loop()
        began, held_s = loop.time(), self._held_s()
        task = loop.create_task(_finished(self._check()), name="check_health")
        try:
            while not task.done():
                left_s = self._timeout_s - (loop.time() - began - (self._held_s() - held_s))
                if left_s <= 0:
                    raise TimeoutError(f"check_health() did not return within {self._timeout_s:g} s.")
                await asyncio.wait({task}, timeout=left_s)
        finally:
            task.cancel()
        if task.cancelled():
            raise SalverError("check_health() was cancelled by its own code.")
        task.result()


async def _finished(check: Awaitable[None]) -> None:
    await check
