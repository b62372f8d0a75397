"""`@batch`: many calls with one item each become few calls with lists of items."""

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from salver.runtime.batch_settings import (
    DEFAULT_WAIT_S,
    Settings,
    checked_batch_size_fn,
    checked_max_batch_size,
    checked_max_concurrent_batches,
    checked_target_latency,
    checked_wait,
)
from salver.runtime.batched import Batched, BatchedStream

A = TypeVar("A")
B = TypeVar("B")
S = TypeVar("S")
R = TypeVar("R")

_NOT_ASYNC = "Functions decorated with @serve.batch must be 'async def'"
_NOT_CALLABLE = "@serve.batch can only be used to decorate functions or methods."


class BatchDecorator(Protocol):
    """What `batch(...)` returns: a handler of lists becomes a function of one item, for type checkers too."""

    @overload
    def __call__(self, function: Callable[[list[A]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A], R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[A], list[B]], Coroutine[Any, Any, Iterable[R]]], /
    ) -> Batched[[A, B], R]: ...
    @overload
    def __call__(self, function: Callable[[S, list[A]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A], R]: ...
    @overload
    def __call__(
        self, function: Callable[[S, list[A], list[B]], Coroutine[Any, Any, Iterable[R]]], /
    ) -> Batched[[A, B], R]: ...
    @overload
    def __call__(self, function: Callable[..., Coroutine[Any, Any, Iterable[R]]], /) -> Batched[..., R]: ...
    @overload
    def __call__(self, function: Callable[[list[A]], AsyncGenerator[Iterable[R], Any]], /) -> BatchedStream[[A], R]: ...
    @overload
    def __call__(
        self, function: Callable[[S, list[A]], AsyncGenerator[Iterable[R], Any]], /
    ) -> BatchedStream[[A], R]: ...
    @overload
    def __call__(self, function: Callable[..., AsyncGenerator[Iterable[R], Any]], /) -> BatchedStream[..., R]: ...
    @overload
    def __call__(self, function: Callable[..., Any], /) -> Batched[..., Any]: ...


@overload
def batch(_func: Callable[[list[A]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A], R]: ...
@overload
def batch(_func: Callable[[list[A], list[B]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A, B], R]: ...
@overload
def batch(_func: Callable[[S, list[A]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A], R]: ...
@overload
def batch(_func: Callable[[S, list[A], list[B]], Coroutine[Any, Any, Iterable[R]]], /) -> Batched[[A, B], R]: ...
@overload
def batch(_func: Callable[..., Coroutine[Any, Any, Iterable[R]]], /) -> Batched[..., R]: ...
@overload
def batch(
    _func: None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = DEFAULT_WAIT_S,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
    *,
    target_latency_s: float | None = None,
) -> BatchDecorator: ...
def batch(
    _func: Any = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = DEFAULT_WAIT_S,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
    *,
    target_latency_s: float | None = None,
) -> Any:
    """Let a function or method work on several calls at once.

    The handler takes a list for each parameter and returns a list with one result for each item; or it is an
    asynchronous generator that yields such lists. Callers call it with single items: `await self.handle(item)`, or
    `async for part in self.stream(item)`. It works wherever an event loop runs, in a replica and out of one.

    Args:
        max_batch_size: Most items of a batch.
        batch_wait_timeout_s: How long the first item of a batch waits for others; 0 takes what is there.
        max_concurrent_batches: How many batches run at once, for each multiplexed model.
        batch_size_fn: Returns a batch's size, from the list of its items' first arguments; `max_batch_size` then limits
            that.
        target_latency_s: The time from an item's arrival to its answer that 95 of 100 items should keep. Size and wait
            are then learned, for the highest throughput; the two options above are their upper bounds.

    Raises:
        TypeError: An option has the wrong type, or what is decorated is no `async def`; with parentheses, the latter is
            raised by each call.
        ValueError: An option has a value that is not allowed.
    """
    settings = Settings(
        checked_max_batch_size(max_batch_size),
        checked_wait(batch_wait_timeout_s),
        checked_max_concurrent_batches(max_concurrent_batches),
        checked_batch_size_fn(batch_size_fn),
        checked_target_latency(target_latency_s),
    )

    if _func is None:
        return partial(_batched, settings)
    if inspect.isasyncgenfunction(_func):
        raise TypeError(f"{_NOT_ASYNC}; for an asynchronous generator, write `@serve.batch()`.")
    if callable(_func) and not inspect.iscoroutinefunction(_func):
        raise TypeError(_NOT_ASYNC)
    return _batched(settings, _func)


def _batched(settings: Settings, function: Any) -> Any:
    if not callable(function):
        raise TypeError(_NOT_CALLABLE)
    kind: Any = BatchedStream if inspect.isasyncgenfunction(function) else Batched
    return kind(function, settings)
