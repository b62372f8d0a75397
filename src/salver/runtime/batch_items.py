"""One call of a batched function: its arguments while it waits, and its answer."""

import asyncio
from collections import deque
from contextvars import Context, copy_context
from typing import Any

from salver.handle.request_context import RequestContext
from salver.runtime.batch_arguments import Shape

MOST_UNREAD_PARTS = 64
"""A streaming handler is not asked for more while each of its readers has so much before him."""

END = object()
"""What comes after the last part."""


class Item:
    """A call that is one item of a batch, and whose answer is one value.

    Attributes:
        shape: Which parameters it has passed, whose values are in `values`.
        arrived: Loop time of the call.
        request: What the calling code worked on.
        context: The calling code's variables.
        future: Its answer.
    """

    __slots__ = ("arrived", "context", "deferred", "future", "request", "shape", "values")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, shape: Shape, values: tuple[Any, ...], request: RequestContext
    ) -> None:
        self.shape = shape
        self.values = values
        self.request = request
        self.arrived = loop.time()
        self.deferred = False
        self.context: Context = copy_context()
        self.future: asyncio.Future[Any] = loop.create_future()

    @property
    def first(self) -> Any:
        """Its first argument, of which a size function makes its size."""
        return self.values[0] if self.values else None

    @property
    def is_open(self) -> bool:
        """Say whether its caller waits for more."""
        return not self.future.done()

    def fail(self, error: BaseException) -> None:
        """End it with an exception."""
        if not self.future.done():
            self.future.set_exception(error)


class StreamItem(Item):
    """A call whose answer is a stream; `future` is done when no more parts come, or nobody reads them.

    Attributes:
        abandoned: Its caller has left before its end.
    """

    __slots__ = ("_loop", "_parts", "_space", "_waiter", "abandoned")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, shape: Shape, values: tuple[Any, ...], request: RequestContext
    ) -> None:
        super().__init__(loop, shape, values, request)
        self._loop = loop
        self._parts: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._space: asyncio.Event | None = None
        self.abandoned = False

    def add(self, part: Any) -> None:
        """Give the reader a part."""
        self._parts.append(part)
        self._wake()

    def end(self) -> None:
        """No more parts come."""
        if not self.future.done():
            self.future.set_result(None)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """End it with an exception, which follows the parts that are there."""
        super().fail(error)
        self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        if self.future.cancel():
            self.abandoned = True
        elif not self.future.cancelled():
            # Looked at, so that nobody misses it.
            self.future.exception()
        self._parts.clear()
        self._make_space()

    def has_space(self, space: asyncio.Event) -> bool:
        """Say whether the reader should have more now; where not, the event is set when it should, or has left."""
        if len(self._parts) < MOST_UNREAD_PARTS:
            return True
        self._space = space
        return False

    async def next(self) -> Any:
        """Return the next part, or `END`.

        Raises:
            Exception: What the item failed with.
        """
        while not self._parts:
            if self.future.done():
                self.future.result()
                return END
            self._waiter = self._loop.create_future()
            await self._waiter
        part = self._parts.popleft()
        self._make_space()
        return part

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _make_space(self) -> None:
        if self._space is not None:
            self._space.set()
