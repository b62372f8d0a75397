"""Pieces of streams that come close together leave in one write for each client."""

from asyncio import AbstractEventLoop
from typing import Protocol


class Held(Protocol):
    """Who has something to write."""

    def flush(self) -> None:
        """Write it."""


class Batches:
    """Flushes after the next look at what has arrived.

    A write costs more than all that leads to it. While there is much to do, more pieces of the same streams have
    arrived by then, and share a write; while there is little, that look costs microseconds.

    Args:
        loop: Calls back.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._held: list[Held] = []

    def add(self, held: Held) -> None:
        """Flush this soon."""
        if not self._held:
            self._call_soon(self._after_this_tick)
        self._held.append(held)

    def _after_this_tick(self) -> None:
        # The loop reads between this call and the next.
        self._call_soon(self._flush)

    def _flush(self) -> None:
        all_held, self._held = self._held, []
        for held in all_held:
            held.flush()
