"""Waiting for a condition until a deadline: the only way a test waits."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, overload

_POLL_S = 0.01

T = TypeVar("T")


@overload
async def wait_until(condition: Callable[[], Awaitable[T]], *, within_s: float, what: str) -> T: ...
@overload
async def wait_until(condition: Callable[[], T], *, within_s: float, what: str) -> T: ...
async def wait_until(condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
    """Return the first true value of `condition`, which may be a coroutine function.

    Args:
        condition: Asked again and again; what it raises passes through.
        within_s: When to give up.
        what: What is waited for, for the error: "two replicas".

    Raises:
        AssertionError: It was not true in time; says what was missing and what was there instead.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            _give_up(what, within_s, value)
        await asyncio.sleep(_POLL_S)


def wait_until_sync(condition: Callable[[], T], *, within_s: float, what: str) -> T:
    """Return the first true value of `condition`, as `wait_until` does, where there is no event loop."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() >= deadline:
            _give_up(what, within_s, value)
        time.sleep(_POLL_S)
    return value


def _give_up(what: str, within_s: float, last: object) -> NoReturn:
    raise AssertionError(f"waited {within_s:g} s for {what}; last seen: {last!r}")
