"""What the user's class is asked: what is taken, and what is only logged."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from salver.lib.clock import ManualClock
from salver.lib.tasks import Tasks
from salver.replica.hooks import Hook, checked_metadata, checked_stats
from salver.schema.errors import InvalidOption
from tests.waiting import wait_until


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    failed: list[Any] = []
    each = Tasks(lambda name, error: failed.append((name, error)))
    yield each
    await each.close()
    assert failed == []


def stats_hook(tasks: Tasks, method: Callable[[], Any], timeout_s: float = 5.0) -> Hook:
    return Hook(method, checked_stats, name="record_routing_stats", timeout_s=timeout_s, tasks=tasks)


async def test_a_plain_method_is_asked_in_a_thread(tasks: Tasks) -> None:
    threads: list[int] = []
    answers: list[Any] = []

    def record() -> dict[str, float]:
        threads.append(threading.get_ident())
        return {"load": 1}

    await stats_hook(tasks, record).ask(answers.append)
    assert answers == [{"load": 1.0}]
    assert threads != [threading.get_ident()]


async def test_an_async_method_is_awaited(tasks: Tasks) -> None:
    answers: list[Any] = []

    async def record() -> dict[str, float]:
        await asyncio.sleep(0)
        return {"load": 0.5}

    await stats_hook(tasks, record).ask(answers.append)
    assert answers == [{"load": 0.5}]


@pytest.mark.parametrize(
    "value",
    [None, [1], "x", {"a": "b"}, {1: 2.0}, {"a": True}, {"a": float("nan")}, {"a": float("inf")}, {"a": Decimal(1)}],
    ids=repr,
)
async def test_what_is_no_statistics_is_ignored(tasks: Tasks, value: Any) -> None:
    answers: list[Any] = []
    await stats_hook(tasks, lambda: value).ask(answers.append)
    assert answers == []


async def test_what_goes_wrong_is_logged_once_until_it_goes_well(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[Any] = [ValueError("why"), ValueError("why"), {"a": 1}, None, None]
    answers: list[Any] = []

    def record() -> Any:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    hook = stats_hook(tasks, record)
    logged = []
    with caplog.at_level(logging.WARNING, logger="salver"):
        for _ in range(5):
            await hook.ask(answers.append)
            logged.append(len(caplog.records))
    assert logged == [1, 1, 1, 2, 2]
    assert answers == [{"a": 1.0}]
    assert "why" in caplog.text


async def test_an_async_method_that_takes_too_long_is_cancelled(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    async def record() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    with caplog.at_level(logging.WARNING, logger="salver"):
        await stats_hook(tasks, record, timeout_s=0.01).ask(lambda _: None)
    assert cancelled == [True]
    assert "did not return within 0.01 s" in caplog.text


async def test_a_plain_method_that_takes_too_long_is_never_run_twice_at_once(tasks: Tasks) -> None:
    go_on = threading.Event()
    begun: list[bool] = []
    answers: list[Any] = []

    def record() -> dict[str, float]:
        begun.append(True)
        go_on.wait(10)
        return {"late": 1}

    asking = asyncio.create_task(
        stats_hook(tasks, record, timeout_s=0.01).ask_for_ever(answers.append, period_s=1.0, clock=ManualClock())
    )
    await wait_until(lambda: begun, within_s=5, what="a call")
    await asyncio.wait([asking], timeout=0.05)
    go_on.set()
    await asyncio.wait([asking], timeout=0.05)
    asking.cancel()
    assert (begun, answers) == ([True], [])


async def test_it_is_asked_now_and_in_every_period(tasks: Tasks) -> None:
    clock = ManualClock()
    answers: list[Any] = []

    async def record() -> dict[str, float]:
        return {"number": len(answers)}

    asking = asyncio.create_task(stats_hook(tasks, record).ask_for_ever(answers.append, period_s=10.0, clock=clock))
    await wait_until(lambda: len(answers) == 1, within_s=5, what="the first answer")
    clock.advance(9.0)
    await asyncio.wait([asking], timeout=0.02)
    assert len(answers) == 1
    clock.advance(1.0)
    await wait_until(lambda: len(answers) == 2, within_s=5, what="the second answer")
    asking.cancel()


def test_all_real_numbers_are_statistics() -> None:
    assert checked_stats({"a": 1, "b": Fraction(1, 2)}) == {"a": 1.0, "b": 0.5}


def test_metadata_is_what_json_can_hold() -> None:
    assert checked_metadata({"gpu": ("a", 1)}) == {"gpu": ["a", 1]}
    with pytest.raises(TypeError, match="expected a dictionary"):
        checked_metadata(["a"])
    with pytest.raises(InvalidOption, match="not JSON-serializable"):
        checked_metadata({"a": object()})
