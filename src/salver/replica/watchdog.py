"""Watches from a thread whether the event loop turns: a replica whose user code holds it is busy, not dead."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable

BEAT_S = 1.0
"""The loop shows so often that it turns."""
HELD_AFTER_S = 5.0
"""A loop that has not turned for so long is held; less is slow code, which is no news."""
REPORT_EVERY_S = 10.0

OnHeld = Callable[[float, str], None]


class Watchdog:
    """Watches the running event loop.

    Args:
        on_held: Called in the watchdog's own thread while the loop is held, again and again: for how many seconds by
            now, and where.
    """

    def __init__(self, on_held: OnHeld, *, beat_s: float = BEAT_S, held_after_s: float = HELD_AFTER_S) -> None:
        self._on_held = on_held
        self._beat_s = beat_s
        self._held_after_s = held_after_s
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._last_beat = time.monotonic()
        self._held_before_s = 0.0
        self._closed = threading.Event()
        self._timer = self._loop.call_later(beat_s, self._beat)
        self._thread = threading.Thread(target=self._watch, name="salver-watchdog", daemon=True)
        self._thread.start()

    def held_s(self) -> float:
        """Return for how many seconds, in all, the loop was held so far."""
        return self._held_before_s + self._late_s()

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        self._timer.cancel()

    def _late_s(self) -> float:
        """Return how late the loop's next beat is."""
        return max(0.0, time.monotonic() - self._last_beat - self._beat_s)

    def _beat(self) -> None:
        self._held_before_s += self._late_s()
        self._last_beat = time.monotonic()
        self._timer = self._loop.call_later(self._beat_s, self._beat)

    def _watch(self) -> None:
        wait_s = self._held_after_s
        while not self._closed.wait(wait_s):
            late_s = self._late_s()
            if late_s < self._held_after_s:
                wait_s = self._held_after_s
            else:
                self._on_held(late_s, self._where())
                wait_s = REPORT_EVERY_S

    def _where(self) -> str:
        """Return where the loop's thread is, as the end of a traceback."""
        frame = sys._current_frames().get(self._loop_thread)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-3:]).rstrip()
