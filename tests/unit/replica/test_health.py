"""Health checks: how often, how long, and what is told of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from salver.lib.clock import ManualClock
from salver.replica.health import JITTER, HealthChecks
from salver.schema.errors import SalverError
from tests.waiting import wait_until


class Told:
    """A replica that is checked, and what was told of it."""

    def __init__(
        self, check: Callable[[], Awaitable[None]], *, period_s: float = 10.0, timeout_s: float = 30.0
    ) -> None:
        self.told: list[tuple[int, str]] = []
        self.held_s = 0.0
        self.checks = HealthChecks(
            check,
            period_s=period_s,
            timeout_s=timeout_s,
            held_s=lambda: self.held_s,
            tell=lambda failures, reason: self.told.append((failures, reason.rpartition("\n")[2])),
        )


async def well() -> None:
    pass


async def ill() -> None:
    raise ValueError("ill")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_failures_in_a_row_are_counted_and_one_good_check_forgets_them() -> None:
    answers = [ill, ill, well, ill]

    async def next_one() -> None:
        await answers.pop(0)()

    told = Told(next_one)
    for _ in range(4):
        await told.checks.check_and_tell()
    assert told.told == [(1, "ValueError: ill"), (2, "ValueError: ill"), (0, ""), (1, "ValueError: ill")]
    assert told.checks.failures == 1


async def test_a_check_that_hangs_fails_after_its_time_and_is_cancelled() -> None:
    ended = asyncio.Event()

    async def hanging() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    told = Told(hanging, timeout_s=0.05)
    await told.checks.check_and_tell()
    assert told.told == [(1, "TimeoutError: check_health() did not return within 0.05 s.")]
    await asyncio.wait_for(ended.wait(), 5)


async def test_time_in_which_the_loop_was_held_is_no_time_of_the_check() -> None:
    told = Told(for_ever, timeout_s=0.05)
    told.checks._check = lambda: asyncio.sleep(0.2)

    def hold() -> None:
        told.held_s += 0.3

    asyncio.get_running_loop().call_later(0.01, hold)
    await told.checks.check_and_tell()
    assert told.told == [(0, "")]


async def test_the_first_check_raises_what_the_user_raised() -> None:
    with pytest.raises(ValueError, match="ill"):
        await Told(ill).checks.check()
    with pytest.raises(TimeoutError, match="did not return within"):
        await Told(for_ever, timeout_s=0.01).checks.check()


async def test_a_check_that_cancels_itself_has_failed_and_the_replica_goes_on() -> None:
    async def cancels() -> None:
        raise asyncio.CancelledError

    with pytest.raises(SalverError, match="was cancelled by its own code"):
        await Told(cancels).checks.check()


async def test_whoever_stops_the_checks_stops_the_one_that_runs() -> None:
    told = Told(for_ever)
    task = asyncio.get_running_loop().create_task(told.checks.check_and_tell())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.told == []


async def test_periods_vary_by_a_tenth() -> None:
    told, clock = Told(well), ManualClock()
    running = asyncio.get_running_loop().create_task(told.checks.run(clock, random.Random(7)))
    for number in range(1, 20):
        await wait_until(lambda number=number: len(told.told) == number, within_s=5, what="a check")  # type: ignore[misc]
        clock.advance(10 * (1 - JITTER) - 0.001)
        await asyncio.sleep(0)
        assert len(told.told) == number
        clock.advance(10 * 2 * JITTER + 0.001)
    running.cancel()
