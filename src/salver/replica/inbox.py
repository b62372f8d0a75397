"""What a caller sends on one stream: in order, taken by user code, with credit for more as it is taken."""

from asyncio import Event
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


class Inbox:
    """ASGI messages of one request or WebSocket.

    Args:
        grant: Called with a number of bytes when user code has taken that many, so that the caller may send more.
    """

    __slots__ = ("_arrived", "_grant", "_last", "_messages")

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        self._messages: deque[tuple[Message, int]] = deque()
        self._last: Message | None = None
        self._arrived: Event | None = None

    def put(self, message: Message, size_bytes: int) -> None:
        """Add a message that weighs so much; nothing is added after the end."""
        if self._last is None:
            self._messages.append((message, size_bytes))
            self._wake()

    def end(self, message: Message) -> None:
        """Answer with this message for ever, once all others are taken."""
        if self._last is None:
            self._last = message
            self._wake()

    async def receive(self) -> Message:
        """Return the next message; part of ASGI. Waits while there is none."""
        while not self._messages:
            if self._last is not None:
                return self._last
            # One event for all who wait: several tasks of an application may.
            if self._arrived is None:
                self._arrived = Event()
            await self._arrived.wait()
        message, size_bytes = self._messages.popleft()
        if size_bytes:
            self._grant(size_bytes)
        return message

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.set()
