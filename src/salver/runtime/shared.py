"""Endpoints of an application that several replicas share, because they share a process."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from salver.runtime.context import get_replica_context


def of_the_asked_replica(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like a method of an instance that calls the instance of whichever replica it is called in."""
    name = method.__name__

    def here() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(get_replica_context().servable_object, name)
        return found

    call = _like(method, here)
    functools.update_wrapper(call, method)
    call.__signature__ = _signature(method)  # type: ignore[attr-defined]
    return call


def _like(method: Callable[..., Any], here: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """Return a function of the same kind, which web frameworks look at."""

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await here()(*args, **kwargs)

    async def async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for each in here()(*args, **kwargs):
            yield each

    def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from here()(*args, **kwargs)

    def function(*args: Any, **kwargs: Any) -> Any:
        return here()(*args, **kwargs)

    if inspect.iscoroutinefunction(method):
        return coroutine
    if inspect.isasyncgenfunction(method):
        return async_generator
    return generator if inspect.isgeneratorfunction(method) else function


def _signature(method: Callable[..., Any]) -> inspect.Signature:
    """Return a signature whose annotations are no text: what text means is known in the method's module only."""
    try:
        return inspect.signature(method, eval_str=True)
    except NameError:
        return inspect.signature(method)
