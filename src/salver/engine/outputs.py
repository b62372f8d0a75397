"""What processes write: pipes in, whole lines out. A reader that is too slow loses lines, never stops a process."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

KEPT_LINES = 40
MAX_LINE_SIZE_BYTES = 64 * 1024

OnLines = Callable[[str, tuple[str, ...]], None]


class Terminal(Protocol):
    """Where a person may be looking."""

    def show(self, source: str, lines: tuple[str, ...]) -> None:
        """Show what a process wrote."""

    def say(self, text: str) -> None:
        """Show one line of our own."""


class Output(asyncio.Protocol):
    """The output of one process.

    Args:
        name: The process.
        on_lines: Called with the name and the lines that arrived together.
    """

    def __init__(self, name: str, on_lines: OnLines) -> None:
        self._name = name
        self._on_lines = on_lines
        self._rest = b""
        self._recent: deque[str] = deque(maxlen=KEPT_LINES)
        self._transport: asyncio.BaseTransport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def recent(self) -> str:
        """Return the last lines, for a message that explains an exit."""
        return "\n".join(self._recent)

    async def finished(self, within_s: float) -> str:
        """Wait until nobody can write any more, then return the last lines."""
        await asyncio.wait([self.ended], timeout=within_s)
        return self.recent

    def close(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; part of asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on whole lines; part of asyncio.Protocol."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_SIZE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._emit(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on what is left; part of asyncio.Protocol."""
        if self._rest:
            self._emit([self._rest])
            self._rest = b""
        if not self.ended.done():
            self.ended.set_result(None)

    def _emit(self, lines: list[bytes]) -> None:
        texts = tuple(line.decode(errors="replace").rstrip("\r") for line in lines)
        self._recent.extend(texts)
        self._on_lines(self._name, texts)


async def open_output(name: str, on_lines: OnLines) -> tuple[Output, int]:
    """Return the reading side, and the descriptor that a process writes to."""
    read_end, write_end = os.pipe()
    loop = asyncio.get_running_loop()
    _, output = await loop.connect_read_pipe(lambda: Output(name, on_lines), os.fdopen(read_end, "rb", 0))
    return output, write_end
