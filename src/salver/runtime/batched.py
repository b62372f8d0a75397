"""What `@batch` makes of a function or a method: called with one item, it answers for one item."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from salver.runtime.batch_counters import BatchCounters
from salver.runtime.batch_items import END
from salver.runtime.batch_settings import Settings, checked_max_batch_size, checked_wait
from salver.runtime.batches import Batches, BatchesByInstance

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")


class _Controls:
    """What can be asked and changed of a batched function, or of a batched method of one instance."""

    _settings: Settings

    @property
    def _batches(self) -> Batches | None:
        raise NotImplementedError

    @property
    def counters(self) -> BatchCounters | None:
        """Sizes and times of its batches so far; None before its first call."""
        return None if self._batches is None else self._batches.counters

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set the most items of a batch, from the next batch on.

        Raises:
            TypeError: It is no whole number.
            ValueError: It is less than 1.
        """
        self._settings.max_batch_size = checked_max_batch_size(max_batch_size)

    def set_batch_wait_timeout_s(self, batch_wait_timeout_s: float) -> None:
        """Set how long the first item of a batch waits for others, from the next batch on.

        Raises:
            TypeError: It is no number.
            ValueError: It is negative.
        """
        self._settings.batch_wait_timeout_s = checked_wait(batch_wait_timeout_s)

    def _get_max_batch_size(self) -> int:
        return self._settings.max_batch_size

    def _get_batch_wait_timeout_s(self) -> float:
        return self._settings.batch_wait_timeout_s

    def _get_curr_iteration_start_times(self) -> list[float]:
        """Return when each of the handlers that run began, in loop time."""
        return [] if self._batches is None else sorted(self._batches.running().values())

    async def _is_batching_task_alive(self) -> bool:
        """Say whether calls have been made in this event loop; from then on, nothing can end its batches."""
        return self._batches is not None and self._batches.is_alive

    async def _get_handling_task_stack(self) -> str | None:
        """Return where the handler stands that has run for longest; None while none runs."""
        return None if self._batches is None else self._batches.stack()


class _Bound(_Controls):
    """A batched method of one instance."""

    def __init__(self, batches: Batches, instance: object) -> None:
        # Held, so that the instance lives as long as a call to it waits.
        self.__self__ = instance
        self._own = batches
        self._settings = batches.settings

    @property
    def _batches(self) -> Batches:
        return self._own


class BoundBatch(_Bound, Generic[P, R]):
    """A batched coroutine method of one instance; called with one item, it gives one result."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(self, **named: Any) -> Coroutine[Any, Any, R]: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the batch that the item becomes part of, and return the item's result."""
        return await _result(self._own, args, kwargs)


class BoundBatchStream(_Bound, Generic[P, R]):
    """A batched asynchronous generator of one instance; called with one item, it streams that item's parts."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]: ...
    @overload
    def __call__(self, **named: Any) -> AsyncGenerator[R, None]: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Yield the item's parts as the batch brings them."""
        async with aclosing(_parts(self._own, args, kwargs)) as parts:
            async for part in parts:
                yield part


class _Batched(_Controls, Generic[K]):
    """A function under `@batch`, or a method of all instances of its class.

    Args:
        function: The user's handler.
        settings: What the decorator says.
    """

    __name__: str

    is_bound_later = True
    """So that type checkers know what `handle[Model.method]` calls; see `handle/handle_types.py`."""
    _streams = False
    _bound: Callable[[Batches, object], K]

    def __init__(self, function: Callable[..., Any], settings: Settings) -> None:
        update_wrapper(cast("Callable[..., Any]", self), function)
        self._function = function
        self._settings = settings
        self._own: Batches | None = None
        self._by_instance = BatchesByInstance()
        self._owner: type | None = None

    @property
    def _batches(self) -> Batches | None:
        return self._own

    @property
    def _name(self) -> str:
        return str(getattr(self._function, "__name__", type(self._function).__name__))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> K: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """Bind it to an instance, which has batches of its own."""
        if instance is None:
            self._owner = owner
            return self
        return self._bound(self._of(instance), instance)

    def _of(self, instance: object) -> Batches:
        return self._by_instance.find(instance) or self._by_instance.add(instance, self._make)

    def _called_on(self, args: tuple[Any, ...]) -> tuple[Batches, tuple[Any, ...]]:
        if self._owner is not None and args and isinstance(args[0], self._owner):
            # `Model.handle(model, item)`
            return self._of(args[0]), args[1:]
        if self._own is None:
            self._own = self._make(None)
            self._own.settings = self._settings
        return self._own, args

    def _make(self, instance: Callable[[], Any] | None) -> Batches:
        return Batches(self._function, self._name, self._settings, instance, streams=self._streams)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function, self._settings)


class Batched(_Batched[BoundBatch[P, R]], Generic[P, R]):
    """A batched coroutine function; called with one item, it gives one result."""

    _bound = BoundBatch

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(self, **named: Any) -> Coroutine[Any, Any, R]: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the batch that the item becomes part of, and return the item's result."""
        batches, values = self._called_on(args)
        return await _result(batches, values, kwargs)


class BatchedStream(_Batched[BoundBatchStream[P, R]], Generic[P, R]):
    """A batched asynchronous generator; called with one item, it streams that item's parts."""

    _streams = True
    _bound = BoundBatchStream

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]: ...
    @overload
    def __call__(self, **named: Any) -> AsyncGenerator[R, None]: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Yield the item's parts as the batch brings them."""
        batches, values = self._called_on(args)
        async with aclosing(_parts(batches, values, kwargs)) as parts:
            async for part in parts:
                yield part


async def _result(batches: Batches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    item, loop = batches.add(args, kwargs)
    try:
        return await item.future
    except asyncio.CancelledError:
        loop.withdraw(item)
        raise


async def _parts(batches: Batches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
    item, loop = batches.add(args, kwargs)
    try:
        while (part := await item.next()) is not END:
            yield part
    finally:
        item.leave()
        loop.withdraw(item)
