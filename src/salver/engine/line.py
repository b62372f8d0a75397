"""The agent's end of the lines to zygotes and newborn processes: never blocks the agent, whatever they do."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence

from salver.engine.orders import LENGTH, LineClosed, Order, Report, decode_report, encoded
from salver.lib.tasks import Tasks


class Line:
    """Our end of a socket pair.

    Args:
        sock: The socket; the line closes it.
        tasks: Owns the sending, which is finished even when the one who asked for it gives up.
    """

    def __init__(self, sock: socket.socket, *, tasks: Tasks) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._tasks = tasks
        self._turn = asyncio.Lock()
        self._users = 0
        self._closed = False

    async def send(self, order: Order, fds: Sequence[int] = ()) -> None:
        """Send an order and copies of the descriptors that go with it.

        Raises:
            LineClosed: The other end is gone.
        """
        copies = [os.dup(fd) for fd in fds]
        # Half an order would be the end of the line.
        if not await asyncio.shield(self._tasks.start(self._send(order, copies), name="order")):
            raise LineClosed

    async def receive(self) -> Report:
        """Wait for a report.

        Raises:
            LineClosed: The other end is gone.
        """
        with self._use():
            (size,) = LENGTH.unpack(await self._receive_exactly(LENGTH.size))
            return decode_report(await self._receive_exactly(size))

    @property
    def is_open(self) -> bool:
        """Say whether the other end was there when we last looked."""
        return not self._closed

    def close(self) -> None:
        """Close the line: who still waits for orders ends then."""
        self._closed = True
        # Wakes whoever still waits; the loop must have forgotten the descriptor before its number is used again.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._users == 0:
            self._sock.close()

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closed and self._users == 0:
                self._sock.close()

    async def _send(self, order: Order, fds: list[int]) -> bool:
        length, data = encoded(order)
        try:
            async with self._turn:
                with self._use():
                    while not self._send_now(length, fds):
                        await self._writable()
                    await asyncio.get_running_loop().sock_sendall(self._sock, data)
        except OSError:
            self._closed = True
            return False
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _send_now(self, data: bytes, fds: list[int]) -> bool:
        try:
            socket.send_fds(self._sock, [data], fds)
        except BlockingIOError:
            return False
        return True

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._sock, room.set)
        try:
            await room.wait()
        finally:
            loop.remove_writer(self._sock)

    async def _receive_exactly(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        parts = bytearray()
        while len(parts) < size:
            try:
                part = await loop.sock_recv(self._sock, size - len(parts))
            except OSError as error:
                raise LineClosed from error
            if not part:
                raise LineClosed
            parts += part
        return bytes(parts)
