"""An in-process twin of sockets, for tests: it carries the same bytes, and delays, loses or cuts them on order.

`tests/contract/test_transport.py` holds it and the real sockets to the same promises.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from salver.schema.errors import Disconnected
from salver.transport.framing import FrameConnection, FrameSink

_HIGH_WATER_BYTES = 64 * 1024
_LOW_WATER_BYTES = 16 * 1024


class MemoryTransport(asyncio.Transport):
    """One end of a pair, and the bytes that were written there and are under way to the other end."""

    def __init__(self, protocol: FrameConnection) -> None:
        super().__init__()
        self.other: MemoryTransport
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[bytes] = deque()
        self._size = 0
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
        self._loop.call_soon(self._deliver)

    def drop(self) -> None:
        """Lose all that is written here from now on; neither end notices."""
        self._dropping = True

    def cut(self) -> None:
        """Break the connection: both ends learn of it, what is under way is lost."""
        error = ConnectionResetError("cut on order")
        for end in (self, self.other):
            end._under_way.clear()
            end._end(error)

    # asyncio.Transport

    def write(self, data: Any) -> None:
        """Send bytes to the other end; part of asyncio.Transport."""
        if self._closing or self._dropping:
            return
        self._under_way.append(bytes(data))
        self._size += len(data)
        if self._size > _HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
        self._loop.call_soon(self._deliver)

    def close(self) -> None:
        """End both directions after what is under way has arrived; part of asyncio.Transport."""
        self._end(None)
        self._loop.call_soon(self._deliver)

    def abort(self) -> None:
        """End both directions now; part of asyncio.Transport."""
        self._under_way.clear()
        self.close()

    def is_closing(self) -> bool:
        """Say whether the end is closed or about to be; part of asyncio.Transport."""
        return self._closing

    def _deliver(self) -> None:
        while self._under_way and not self._held:
            data = self._under_way.popleft()
            self._size -= len(data)
            if not self.other._closing:
                self.other._protocol.data_received(data)
        if self._paused and self._size <= _LOW_WATER_BYTES and not self._closing:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._under_way and not self.other._closing:
            self.other.close()

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        if not self._ended:
            self._ended = True
            self._loop.call_soon(self._protocol.connection_lost, error)


class MemoryListener:
    """A place that can be dialled until it is closed."""

    def __init__(self, close: Callable[[], Any]) -> None:
        self.close = close


class MemoryNetwork:
    """Addresses that connections can be dialled and listened at, without sockets.

    Attributes:
        ends: The dialling end of each connection, in order.
    """

    def __init__(self) -> None:
        self.ends: list[MemoryTransport] = []
        self._accept: dict[str, Callable[[], FrameSink]] = {}

    async def listen(self, address: str, accept: Callable[[], FrameSink]) -> MemoryListener:
        """Listen for connections; `accept` makes the sink of each."""
        self._accept[address] = accept
        return MemoryListener(lambda: self._accept.pop(address, None))

    async def dial(self, address: str, sink: FrameSink) -> FrameConnection:
        """Open a connection whose frames go to `sink`.

        Raises:
            Disconnected: Nobody listens at the address.
        """
        accept = self._accept.get(address)
        if accept is None:
            raise Disconnected(f"nobody listens at {address}")
        dialling, listening = FrameConnection(sink), FrameConnection(accept())
        near, far = MemoryTransport(dialling), MemoryTransport(listening)
        near.other, far.other = far, near
        self.ends.append(near)
        dialling.connection_made(near)
        listening.connection_made(far)
        return dialling
