"""The instance of a script or a notebook: one per process, living on a thread of its own."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from salver.api.instance import Declared, Instance, OnReport, Report
from salver.handle.session import set_session
from salver.schema.http import HTTPOptions
from salver.schema.messages import InstanceEnded, Notice, Output

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Driver:
    """Runs an `Instance` on a background thread, for callers that block."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self.instance = instance
        self._loop = loop
        self._thread = thread
        self._pid = os.getpid()

    @classmethod
    def launch(cls, http: HTTPOptions, declared: Declared, on_report: OnReport | None = None) -> "Driver":
        """Start an instance; see `Instance.launch`."""
        loop = uvloop.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="salver", daemon=True)
        thread.start()
        try:
            starting = asyncio.run_coroutine_threadsafe(
                Instance.launch(http, on_report or print_report, declared, expose_tracebacks=http.host in LOOPBACK),
                loop,
            )
            driver = cls(_wait(starting), loop, thread)
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            raise
        set_session(driver.instance.session)
        return driver

    @property
    def alive(self) -> bool:
        """Say whether the instance runs, and was started by this very process, not by one that it was forked from."""
        return self._pid == os.getpid() and not self.instance.ended.done()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the instance's loop and return its result; Ctrl-C cancels it."""
        return _wait(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self, *, drain: bool = True) -> None:
        """End the instance and its thread."""
        if self._pid != os.getpid() or self._loop.is_closed():
            return
        set_session(None)
        with contextlib.suppress(KeyboardInterrupt):
            self.call(self.instance.stop(drain=drain))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _wait(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Current:
    driver: Driver | None = None


def find_driver() -> Driver | None:
    """Return this process's driver, or None where nothing runs."""
    driver = _Current.driver
    return driver if driver is not None and driver.alive else None


def ensure_driver(http: HTTPOptions, declared: Declared) -> Driver:
    """Return this process's driver, starting an instance where none runs."""
    driver = find_driver()
    if driver is None:
        if _Current.driver is None:
            atexit.register(stop_driver)
        driver = _Current.driver = Driver.launch(http, declared)
    return driver


def stop_driver() -> None:
    """End this process's instance, if one runs."""
    driver, _Current.driver = _Current.driver, None
    if driver is not None:
        driver.stop()


def print_report(report: Report) -> None:
    """Print what an instance has to say: replicas' lines on standard output, words to the person on standard error."""
    match report:
        case Output():
            for line in report.lines:
                print(f"({report.source}) {line}", flush=True)
        case Notice():
            print(report.text, file=sys.stderr, flush=True)
        case InstanceEnded():
            print(report.reason, file=sys.stderr, flush=True)
