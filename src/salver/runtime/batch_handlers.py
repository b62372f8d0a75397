"""The user's handler, called with a batch: its results, parts and failures brought to the items."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from salver.handle.request_context import RequestContext, enter_request
from salver.runtime.batch_items import Item, StreamItem
from salver.schema.errors import SalverError

Handler = Callable[..., Any]
Answering = Callable[[Handler, list[Any]], Awaitable[None]]

_ENDS = (StopIteration, StopAsyncIteration)


async def answer_batch(handler: Handler, items: list[Item]) -> None:
    """Call a coroutine handler, and give each item its result or all of them the handler's exception."""
    with _Request(items):
        try:
            args, kwargs = items[0].shape.columns([item.values for item in items])
            working = handler(*args, **kwargs)
            if not inspect.isawaitable(working):
                raise TypeError(f"Functions decorated with @serve.batch must be 'async def'; {handler!r} is not.")
            results = _one_for_each(await working, len(items))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and its callers must hear of it
            _fail(items, error)
        else:
            for item, result in zip(items, results, strict=True):
                if not item.future.done():
                    item.future.set_result(result)


async def answer_streams(handler: Handler, items: list[StreamItem]) -> None:
    """Call an asynchronous generator, and give each item its part of what that yields."""
    with _Request(items):
        parts: Any = None
        try:
            args, kwargs = items[0].shape.columns([item.values for item in items])
            parts = handler(*args, **kwargs)
            async for row in parts:
                _hand_out(_one_for_each(row, len(items)), items)
                await _space_for_more(items)
                if not any(item.is_open for item in items) and any(item.abandoned for item in items):
                    break
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and its callers must hear of it
            _fail(items, error)
        finally:
            for item in items:
                item.end()
            if hasattr(parts, "aclose"):
                # Nobody is left to tell what its end raises.
                with suppress(Exception):
                    await parts.aclose()


class _Request:
    """What code in a handler knows of its request: that of the batch, for as long as the handler runs."""

    def __init__(self, items: Sequence[Item]) -> None:
        requests = [item.request for item in items]
        deadlines = [request.deadline for request in requests if request.deadline is not None]
        first = requests[0]
        self._context = RequestContext(
            route=first.route,
            app_name=first.app_name,
            multiplexed_model_id=first.multiplexed_model_id,
            # As long as one member's client waits, so does the batch.
            deadline=max(deadlines) if len(deadlines) == len(items) else None,
            batch_request_ids=tuple(request.request_id for request in requests),
        )

    def __enter__(self) -> None:
        enter_request(self._context)

    def __exit__(self, *_: object) -> None:
        self._context.is_over = True


def _fail(items: Sequence[Item], error: BaseException) -> None:
    """End all items with a handler's exception; the same object for all, as it is one event."""
    failure = error
    if not isinstance(error, Exception) or isinstance(error, _ENDS):
        # Raised as it is, it would end its callers' tasks, or the event loop, and not only their requests.
        failure = SalverError(f"The batch did not end: its handler raised {type(error).__name__}.")
        failure.__cause__ = error
    for item in items:
        item.fail(failure)
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


def _one_for_each(values: Any, count: int) -> list[Any]:
    try:
        length = len(values)
        listed = list(values)
    except TypeError:
        raise SalverError(
            f"Batched function returned {type(values).__name__}; expected a list with one element for each of the "
            f"{count} items of the batch."
        ) from None
    if length != count or len(listed) != count:
        raise SalverError(
            "Batched function doesn't preserve batch size. "
            f"The input list has length {count} but the returned list has length {length}."
        )
    return listed


def _hand_out(row: list[Any], items: Sequence[StreamItem]) -> None:
    for part, item in zip(row, items, strict=True):
        if item.future.done():
            continue
        if part is StopIteration or part is StopAsyncIteration or isinstance(part, _ENDS):
            item.end()
        else:
            item.add(part)


async def _space_for_more(items: Sequence[StreamItem]) -> None:
    """Wait while every reader has enough; a slow one does not hold up the others."""
    space = asyncio.Event()
    while reading := [item for item in items if item.is_open]:
        if any([item.has_space(space) for item in reading]):  # noqa: C419 - all of them should know of the event
            return
        await space.wait()
        space.clear()
