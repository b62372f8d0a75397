"""The instance of a script or a notebook: one per process, living on a thread of its own."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from salver.api.client import Client
from salver.api.instance import Declared, Instance, OnReport, Report
from salver.engine.instances import Found
from salver.handle.session import set_session
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import InstanceEnded, Notice, Output

T = TypeVar("T")
Launch = Callable[[HTTPOptions, OnReport, Declared], Awaitable[Client]]


class Driver:
    """Runs an `Instance`, or a `Client` of one, on a background thread, for callers that block.

    Attributes:
        owns: The instance was started by this process and ends with it.
    """

    def __init__(self, instance: Client, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self.instance = instance
        self.owns = not instance.is_guest
        self._loop = loop
        self._thread = thread
        self._pid = os.getpid()

    @classmethod
    def launch(cls, http: HTTPOptions, machine: Declared, launch: Launch | None = None) -> "Driver":
        """Start an instance, of processes unless another way to launch one is given; see `Instance.launch`."""
        return cls._begin(lambda: (launch or Instance.launch)(http, print_report, machine))

    @classmethod
    def connect(cls, found: Found) -> "Driver":
        """Connect to a running instance; see `Client.connect`."""
        return cls._begin(lambda: Client.connect(found))

    @classmethod
    def _begin(cls, make: Callable[[], Awaitable[Client]]) -> "Driver":
        loop = uvloop.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="salver", daemon=True)
        thread.start()
        made: list[Client] = []

        async def make_it() -> None:
            made.append(await make())

        making = asyncio.run_coroutine_threadsafe(make_it(), loop)
        try:
            making.result()
            driver = cls(made[0], loop, thread)
        except BaseException:
            making.cancel()
            asyncio.run_coroutine_threadsafe(_undo(made), loop).result()
            _end(loop, thread)
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

    def begin(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Run a coroutine on the instance's loop without waiting for it."""
        self._loop.call_soon_threadsafe(lambda: self.instance.tasks.start(work, name=name))

    def stop(self, *, drain: bool = True) -> None:
        """End the instance and its thread."""
        if self._pid != os.getpid() or self._loop.is_closed():
            return
        set_session(None)
        stopping = asyncio.run_coroutine_threadsafe(self.instance.stop(drain=drain), self._loop)
        try:
            stopping.result()
        except KeyboardInterrupt:
            # Whoever presses Ctrl-C now does not want to wait for requests that run.
            asyncio.run_coroutine_threadsafe(self.instance.abandon(), self._loop)
            with contextlib.suppress(KeyboardInterrupt):
                stopping.result()
        _end(self._loop, self._thread)


def _wait(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _undo(made: list[Client]) -> None:
    """Return when nothing is left of an instance that Ctrl-C came for while it was started, or just after."""
    for each in made:
        await each.stop(drain=False)
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def local_launch() -> Launch:
    """Return what launches an instance inside this process.

    By name, as processes are started: it puts together what this room may not know.
    """
    launch: Launch = importlib.import_module("salver.testing.instance").launch
    return launch


class _Current:
    driver: Driver | None = None
    stops_at_exit = False


def find_driver() -> Driver | None:
    """Return this process's driver, or None where nothing runs."""
    driver = _Current.driver
    return driver if driver is not None and driver.alive else None


def ensure_driver(http: HTTPOptions, machine: Declared, launch: Launch | None = None) -> Driver:
    """Return this process's driver, starting an instance where none runs; see `Driver.launch`."""
    driver = find_driver()
    if driver is None:
        if _Current.driver is not None and not _Current.driver.owns:
            raise SalverError(
                "The instance that this process was connected to has ended. serve.connect() finds another; "
                "serve.shutdown() before serve.run() starts one here."
            )
        driver = _take(Driver.launch(http, machine, launch))
    return driver


def connect_driver(found: Found) -> Driver:
    """Return a driver that is connected to a running instance; this process has none that is alive."""
    stop_driver()
    return _take(Driver.connect(found))


def stop_driver(which: Driver | None = None) -> None:
    """End this process's instance, or leave the one that it is connected to, if there is one.

    Args:
        which: Only if it is this one.
    """
    if which is None or which is _Current.driver:
        driver, _Current.driver = _Current.driver, None
        if driver is not None:
            driver.stop()


def _take(driver: Driver) -> Driver:
    if not _Current.stops_at_exit:
        _Current.stops_at_exit = True
        atexit.register(stop_driver)
    _Current.driver = driver
    return driver


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
