"""Connections inside one process, without sockets: they carry the same bytes between event loops of any threads.

Local testing mode runs on them. Tests also let them delay, lose or cut what they carry, on order.
`tests/contract/test_transport.py` holds them and the real sockets to the same promises.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from salver.schema.errors import Disconnected
from salver.transport.framing import FrameConnection, FrameSink

_HIGH_WATER_BYTES = 64 * 1024
_LOW_WATER_BYTES = 16 * 1024


class MemoryTransport(asyncio.Transport):
    """One end of a pair, and the bytes that were written there and are under way to the other end.

    Each end belongs to the event loop and the context that it was made in, and calls its protocol back there only.
    """

    def __init__(self, protocol: FrameConnection) -> None:
        super().__init__()
        self.other: MemoryTransport
        self.loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._context = copy_context()
        self._under_way: deque[bytes] = deque()
        # Two counters, because each is counted up in a thread of its own.
        self._written = 0
        self._delivered = 0
        self._held = False
        self._dropping = False
        self._paused = False
        self._closing = False
        self._ended = False

    # Orders

    def hold(self) -> None:
        """Deliver nothing that was written here until `release`, as if the other end did not read."""
        self._held = True

    def release(self) -> None:
        """Deliver what was held, in order."""
        self._held = False
        self.other.call_soon(self._deliver)

    def drop(self) -> None:
        """Lose all that is written here from now on; neither end notices."""
        self._dropping = True

    def cut(self) -> None:
        """Break the connection: both ends learn of it, what is under way is lost."""
        error = ConnectionResetError("the connection was cut")
        for end in (self, self.other):
            end._under_way.clear()
            if end.loop is asyncio.get_running_loop():
                end._end(error)
            else:
                end.call_soon(end._end, error)

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call back in this end's loop and context; never, if that loop has ended."""
        if self.loop is asyncio.get_running_loop():
            self.loop.call_soon(callback, *arguments, context=self._context)
            return
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *arguments, context=self._context)

    # asyncio.Transport

    def write(self, data: Any) -> None:
        """Send bytes to the other end; part of asyncio.Transport."""
        if self._closing or self._dropping:
            return
        self._under_way.append(bytes(data))
        self._written += len(data)
        if self._size > _HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
            # Whoever takes bytes in another thread may have looked just before, and not seen that somebody waits.
            self._resume()
        self.other.call_soon(self._deliver)

    def close(self) -> None:
        """End both directions after what is under way has arrived; part of asyncio.Transport."""
        self._end(None)
        self.other.call_soon(self._deliver)

    def abort(self) -> None:
        """End both directions now; part of asyncio.Transport."""
        self._under_way.clear()
        self.close()

    def is_closing(self) -> bool:
        """Say whether the end is closed or about to be; part of asyncio.Transport."""
        return self._closing

    @property
    def _size(self) -> int:
        return self._written - self._delivered

    def _deliver(self) -> None:
        """Hand what was written here to the other end, in whose loop this runs."""
        other = self.other
        while self._under_way and not self._held:
            try:
                data = self._under_way.popleft()
            except IndexError:
                break  # This end was cut or aborted meanwhile.
            self._delivered += len(data)
            if not other._closing:
                other._protocol.data_received(data)
        if self._paused and self._size <= _LOW_WATER_BYTES:
            self.call_soon(self._resume)
        if self._closing and not self._under_way and not other._closing:
            other.close()

    def _resume(self) -> None:
        if self._paused and self._size <= _LOW_WATER_BYTES and not self._closing:
            self._paused = False
            self._protocol.resume_writing()

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        if not self._ended:
            self._ended = True
            self.call_soon(self._protocol.connection_lost, error)

    def open(self, opened: "asyncio.Future[None]") -> None:
        """Begin, in this end's loop, unless whoever dialled waits no longer."""
        if opened.cancelled():
            self._ended = True
            self.close()
            return
        self._protocol.connection_made(self)
        opened.set_result(None)


class MemoryListener:
    """A place that can be dialled until it is closed.

    Args:
        accept: Makes the sink of each connection, in the loop and the context of whoever listens.
    """

    def __init__(self, address: str, accept: Callable[[], FrameSink], places: "dict[str, MemoryListener]") -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._accept = accept
        self._places = places
        self._context = copy_context()
        self._closed = False
        places[address] = self

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        if self._places.get(self._address) is self:
            del self._places[self._address]

    def let_in(self, near: MemoryTransport, opened: "asyncio.Future[None]") -> None:
        """Make the other end of a connection, in the loop of whoever listens."""
        # A copy, because nobody may be in a context twice.
        self._context.copy().run(self._let_in, near, opened)

    def _let_in(self, near: MemoryTransport, opened: "asyncio.Future[None]") -> None:
        if self._closed:
            near.call_soon(_refuse, opened, self._address)
            return
        connection = FrameConnection(self._accept())
        far = MemoryTransport(connection)
        near.other, far.other = far, near
        # In this order: the first bytes that come back find the near end open.
        if near.loop is self.loop:
            near.open(opened)
        else:
            near.call_soon(near.open, opened)
        connection.connection_made(far)


class MemoryNetwork:
    """Addresses that connections can be dialled and listened at, without sockets, from any thread's event loop.

    Attributes:
        ends: The dialling end of each connection, in order.
    """

    def __init__(self) -> None:
        self.ends: list[MemoryTransport] = []
        self._places: dict[str, MemoryListener] = {}

    async def listen(self, address: str, accept: Callable[[], FrameSink]) -> MemoryListener:
        """Listen for connections; `accept` makes the sink of each."""
        return MemoryListener(address, accept, self._places)

    async def dial(self, address: str, sink: FrameSink) -> FrameConnection:
        """Open a connection whose frames go to `sink`.

        Raises:
            Disconnected: Nobody listens at the address.
        """
        listener = self._places.get(address)
        if listener is None:
            raise Disconnected(f"nobody listens at {address}")
        connection = FrameConnection(sink)
        near = MemoryTransport(connection)
        self.ends.append(near)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if listener.loop is near.loop:
            listener.let_in(near, opened)
        else:
            try:
                listener.loop.call_soon_threadsafe(listener.let_in, near, opened)
            except RuntimeError:
                raise Disconnected(f"whoever listened at {address} has ended") from None
        await opened
        return connection

    def cut(self, loop: asyncio.AbstractEventLoop) -> None:
        """Break every connection of an event loop, as the end of a process does."""
        for near in list(self.ends):
            far = getattr(near, "other", None)
            if far is not None and loop in (near.loop, far.loop) and not (near.is_closing() and far.is_closing()):
                near.cut()


def _refuse(opened: "asyncio.Future[None]", address: str) -> None:
    if not opened.done():
        opened.set_exception(Disconnected(f"nobody listens at {address}"))
