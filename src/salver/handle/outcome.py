"""What becomes of a call: nothing yet, then what came, as it came, then the value for whoever asks first.

Only the session's loop settles an outcome, so it is settled once without a lock; anybody may wait for it, in any loop
or thread. A result is unpickled where it is asked for, once; what nobody asks for is never unpickled, and can be passed
on as it is.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from salver.handle.errors import error_of
from salver.transport.codec import loads
from salver.transport.encodings import decode
from salver.transport.payloads import Arrival

Raw = bytes | Arrival
Waiter = Callable[[], None]

# A finalizer of a user's, which runs wherever memory is taken, may need it, too.
_lock: Final = threading.RLock()
_running_loop = asyncio._get_running_loop


class Outcome:
    """What becomes of a call.

    Args:
        loop: The session's, which alone settles it.

    Attributes:
        settled: It will not change any more.
        raw: What came and was not loaded yet; the body of an ERROR frame if it has failed.
        failed: An error came.
        encoding: How `raw` is encoded; see `transport/encodings.py`.
    """

    # Of the class until they are set: to set them all costs more than the rest of a call's beginning.
    settled = False
    failed = False
    raw: Raw | None = None
    encoding = ""
    _value: Any = None
    _error: BaseException | None = None
    _first: asyncio.Future[None] | None = None
    _waiters: list[Waiter] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def has_failed(self) -> bool:
        """Say whether there is an error, or what came could not be loaded."""
        return self.failed or self._error is not None

    def settle(self, raw: Raw) -> None:
        """It has come; what it is is seen when somebody asks. Only on the session's loop."""
        self.raw = raw
        self.settled = True
        self._wake()

    def settle_failed(self, error: BaseException | bytes) -> None:
        """There is an error, or the body of an ERROR frame, instead. Only on the session's loop."""
        self.failed = True
        if isinstance(error, bytes):
            self.raw = error
        else:
            self._error = error
        self.settled = True
        self._wake()

    def settle_as(self, other: "Outcome") -> None:
        """Fail as another has failed."""
        raw = other.raw
        self.settle_failed(raw if other.failed and isinstance(raw, bytes) else other.error())

    def get(self) -> Any:
        """Return the value of a settled outcome, the same each time, or raise its error."""
        if self.raw is not None:
            self._load()
        error = self._error
        if error is None:
            return self._value
        try:
            raise error.with_traceback(None)
        finally:
            # The traceback has this frame, which must not have the error.
            del error, self

    def error(self) -> BaseException:
        """Return the error of a failed outcome."""
        if self.raw is not None:
            self._load()
        assert self._error is not None
        return self._error

    def future(self) -> "asyncio.Future[None]":
        """Return what a task of the running loop awaits until this is settled; its own, to be cancelled with it."""
        loop = _running_loop()
        assert loop is not None
        future = loop.create_future()
        if loop is not self._loop:
            self.add_waiter(partial(_wake_elsewhere, loop, future))
            # The loop that settles it may have been quicker.
            if self.settled:
                future.set_result(None)
        elif self._first is None or self._first.done():
            # Mostly there is one only, and none in another thread.
            self._first = future
        else:
            self.add_waiter(partial(_wake_here, future))
        return future

    def block(self, timeout_s: float | None) -> bool:
        """Wait in a thread; say whether it is settled."""
        lock = threading.Lock()
        lock.acquire()
        waiter = partial(_release, lock)
        self.add_waiter(waiter)
        if not self.settled:
            timeout = -1.0 if timeout_s is None else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)
            try:
                lock.acquire(timeout=timeout)
            finally:
                self.remove_waiter(waiter)
        return self.settled

    def add_waiter(self, waiter: Waiter) -> None:
        """Call back on the session's loop when it is settled; another thread must look again afterwards."""
        with _lock:
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Wake it no more."""
        with _lock, suppress(ValueError):
            if self._waiters is not None:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        first = self._first
        if first is not None and not first.done():
            first.set_result(None)
        if self._waiters is not None:
            with _lock:
                waiters, self._waiters = self._waiters or [], None
            for waiter in waiters:
                waiter()

    def _load(self) -> None:
        raw = self.raw
        if raw is None:
            return
        value, error = None, None
        try:
            if not self.failed:
                value = loads(raw) if isinstance(raw, bytes) and not self.encoding else decode(raw, self.encoding)
            elif isinstance(raw, bytes):
                error = error_of(raw)
        except Exception as problem:  # noqa: BLE001 - the user's own classes run while they are unpickled
            error = problem
        with _lock:
            # Two may have loaded it at the same time; everybody gets the first one's.
            if self.raw is raw:
                self._value, self._error = value, error
                self.raw = None


def _wake_elsewhere(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    # That loop may have ended.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_wake_here, future)


def _wake_here(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _release(lock: threading.Lock) -> None:
    with suppress(RuntimeError):
        lock.release()
