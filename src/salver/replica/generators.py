"""Calls that stream: the user's generator is asked for one item after the other, and each is sent at once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, Protocol

from salver.lib.tasks import next_turn
from salver.replica.workers import Workers
from salver.transport.framing import FrameConnection
from salver.transport.large_payloads import LargePayloads
from salver.transport.payloads import Payload, end_of, pack
from salver.transport.wire import CHUNK, END, ITEM_OVERHEAD_BYTES, ITEM_WINDOW_SIZE_BYTES

OVER: Final = object()
"""There are no more items."""


class Items(Protocol):
    """A generator, wherever it runs."""

    async def next(self) -> Any:
        """Return the next item, or OVER.

        Raises:
            Exception: Whatever the generator raised.
        """

    async def stop(self, *, cancelled: bool) -> None:
        """Run what the generator has in its `finally`; nothing happens if it has ended."""


class ItemsOnLoop:
    """An `async` generator."""

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generator = generator

    async def next(self) -> Any:
        """Part of Items."""
        # A generator that never waits would keep its items from leaving, and everybody else from the loop.
        await next_turn()
        return await anext(self._generator, OVER)

    async def stop(self, *, cancelled: bool) -> None:
        """Part of Items."""
        if cancelled:
            # At a `yield` it should learn the same as at an `await`.
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await self._generator.athrow(asyncio.CancelledError())
        await self._generator.aclose()


class ItemsInThreads:
    """A plain generator: each step of it in one thread or another, never two at once, all in one context."""

    def __init__(self, generator: Generator[Any, Any, Any], workers: Workers) -> None:
        self._generator = generator
        self._workers = workers
        self._context = copy_context()

    async def next(self) -> Any:
        """Part of Items."""
        return await self._workers.run(self._context.run, next, self._generator, OVER)

    async def stop(self, *, cancelled: bool) -> None:
        """Part of Items."""
        await self._workers.run(self._context.run, self._generator.close)


class ItemStream:
    """Sends the items of one call, no more than its reader keeps up with.

    Args:
        large_payloads: Gives what sends large payloads on the connection.

    Attributes:
        ended: All of the stream is on its way.
    """

    __slots__ = ("_connection", "_large_payloads", "_room", "_stream", "_wanted", "_window", "ended")

    def __init__(self, connection: FrameConnection, stream: int, large_payloads: Callable[[], LargePayloads]) -> None:
        self.ended = False
        self._connection = connection
        self._stream = stream
        self._large_payloads = large_payloads
        self._window = ITEM_WINDOW_SIZE_BYTES
        self._wanted = 0
        self._room: asyncio.Event | None = None

    async def run(self, items: Items) -> None:
        """Send all items; the generator has ended, one way or another, when this returns.

        Raises:
            Exception: Whatever the generator raised, or pickling an item.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            while (item := await items.next()) is not OVER:
                if task.cancelling():
                    # The generator has swallowed its cancellation; nobody wants its items all the same.
                    raise asyncio.CancelledError
                await self._send(pack(item))
        except BaseException as error:
            await items.stop(cancelled=isinstance(error, asyncio.CancelledError))
            raise

    def end(self, load: int) -> None:
        """Say that these were all."""
        self.ended = True
        self._connection.send(END, self._stream, load=load)

    def grant(self, size_bytes: int) -> None:
        """The reader takes more."""
        self._window += size_bytes
        if self._room is not None and self._window >= self._wanted:
            self._room.set()

    async def _send(self, item: bytes | Payload) -> None:
        if isinstance(item, bytes):
            self._connection.send(CHUNK, self._stream, b"", item)
            self._window -= len(item) + ITEM_OVERHEAD_BYTES
        else:
            large_payloads = self._large_payloads()
            large_payloads.send(CHUNK, self._stream, b"", item)
            self._window -= end_of(item.sizes) + ITEM_OVERHEAD_BYTES
            if not large_payloads.is_trusted:
                # Were it unreadable there, it would come again after the next one.
                await self._wait_for(ITEM_WINDOW_SIZE_BYTES)
                large_payloads.is_trusted = True
        await self._wait_for(1)

    async def _wait_for(self, window: int) -> None:
        """Return when so much more may be sent."""
        while self._window < window:
            self._wanted = window
            self._room = asyncio.Event()
            await self._room.wait()
