"""What all connections of clients have in common, whatever they speak."""

import asyncio


class ClientConnection(asyncio.Protocol):
    """A client's connection; a `Guest` of the crowd.

    Attributes:
        resting: It is silent; it calls `Site.woke` before it does anything else.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.resting = False

    @property
    def idle_since(self) -> float | None:
        """Loop time when it fell silent; None while anything is asked of it or answered."""
        return None

    @property
    def unsent_size_bytes(self) -> int:
        """How much of what it was sent its client has not read; the system has room for a little more."""
        return self._transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """It ends when all is sent."""
        return self._transport.is_closing()
