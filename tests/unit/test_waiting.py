"""`tests.waiting`: the tests stand on it."""

from collections.abc import Awaitable, Callable

import pytest

from tests.waiting import wait_until, wait_until_sync


def third_time(value: str) -> Callable[[], str]:
    """Return a condition that is false twice and then is `value`."""
    answers = iter(["", "", value])
    return lambda: next(answers)


def awaited(condition: Callable[[], str]) -> Callable[[], Awaitable[str]]:
    """Return the same condition as a coroutine function."""

    async def ask() -> str:
        return condition()

    return ask


async def test_waiting_returns_the_first_true_value() -> None:
    assert await wait_until(third_time("up"), within_s=10, what="an answer") == "up"


async def test_waiting_awaits_a_coroutine_function() -> None:
    assert await wait_until(awaited(third_time("up")), within_s=10, what="an answer") == "up"


def test_waiting_without_a_loop_returns_the_first_true_value() -> None:
    assert wait_until_sync(third_time("up"), within_s=10, what="an answer") == "up"


async def test_giving_up_says_what_was_missing_and_what_was_there_instead() -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s for two replicas; last seen: \[\]"):
        await wait_until(list[str], within_s=0, what="two replicas")


def test_giving_up_without_a_loop_says_the_same() -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s for two replicas; last seen: \[\]"):
        wait_until_sync(list[str], within_s=0, what="two replicas")
