"""Clocks: the real one keeps its promise, the manual one stands still."""

import asyncio
import time

from salver.lib.clock import ManualClock, MonotonicClock, wall_time_s
from salver.lib.tasks import Tasks


def ignore(name: str, error: BaseException) -> None:
    """Take no note of a failed task."""


async def test_the_monotonic_clock_has_reached_the_time_when_it_returns() -> None:
    clock = MonotonicClock()
    when = clock.now() + 0.002
    await clock.sleep_until(when)
    assert clock.now() >= when


async def test_the_monotonic_clock_returns_for_a_time_that_has_passed() -> None:
    clock = MonotonicClock()
    await asyncio.wait_for(clock.sleep_until(clock.now() - 10), timeout=1)


async def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(5.0)
    await clock.sleep_until(5.0)
    assert clock.now() == 5.0


async def test_a_manual_clock_wakes_those_whose_time_has_come_in_order() -> None:
    clock, woken, tasks = ManualClock(), list[str](), Tasks(ignore)

    async def sleeper(name: str, when: float) -> None:
        await clock.sleep_until(when)
        woken.append(name)

    for name, when in (("late", 30.0), ("second", 2.0), ("first", 1.0), ("also second", 2.0)):
        tasks.start(sleeper(name, when), name=name)
    await asyncio.sleep(0)
    clock.advance(1.5)
    await asyncio.sleep(0)
    assert woken == ["first"]
    clock.advance(10)
    await asyncio.sleep(0)
    assert woken == ["first", "second", "also second"]
    await tasks.close()


async def test_a_cancelled_sleeper_does_not_disturb_a_manual_clock() -> None:
    clock, tasks = ManualClock(), Tasks(ignore)
    tasks.start(clock.sleep_until(1.0), name="sleeper")
    await asyncio.sleep(0)
    await tasks.close()
    clock.advance(2.0)
    assert clock.now() == 2.0


def test_wall_time_is_the_time_of_day() -> None:
    assert abs(wall_time_s() - time.time()) < 60
