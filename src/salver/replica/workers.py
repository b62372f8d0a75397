"""Threads for plain `def` handlers.

A pool of `concurrent.futures` wakes the event loop once for each result. Here results that come while the loop is busy
are delivered together, and nothing is locked but the queue of jobs: half the cost of a call.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any


class Job:
    """One call in a thread.

    Attributes:
        future: Settled in the loop's thread.
        finished: It has run; the loop's thread knows.
    """

    __slots__ = ("_claim", "_context", "args", "error", "finished", "function", "future", "kwargs", "result")

    def __init__(
        self,
        future: "asyncio.Future[Any]",
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._context = contextvars.copy_context()
        # One of two threads may take it, by an operation that is atomic.
        self._claim = [True]

    def claim(self) -> bool:
        """Decide whether it runs or is dropped: True for the first who asks, False for everybody else."""
        try:
            return self._claim.pop()
        except IndexError:
            return False

    def run(self) -> None:
        """Call the function, in its own context."""
        try:
            self.result = self._context.run(self.function, *self.args, **self.kwargs)
        except StopIteration as error:
            # A future refuses it; coroutines and generators turn it into this, too.
            self.error = RuntimeError("the handler raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and whoever waits must hear of it
            self.error = error


class Workers:
    """Up to so many threads, started as they are needed.

    Args:
        max_threads: How many calls run at once; more wait.
    """

    def __init__(self, max_threads: int) -> None:
        self._max = max_threads
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: deque[Job] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self._threads = 0
        self._unfinished = 0

    def start(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        """Run a function in a thread, in the caller's context; only from an event loop, and always the same one."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        job = Job(loop.create_future(), function, args, kwargs)
        self._unfinished += 1
        if self._threads < self._max:
            self._start_threads()
        self._jobs.put(job)
        return job

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function in a thread and return its result; who is cancelled returns when it has ended, too.

        Raises:
            Exception: Whatever the function raised.
        """
        job = self.start(function, args, kwargs)
        try:
            return await job.future
        except asyncio.CancelledError:
            if not self.drop(job):
                # Nothing stops a thread. The request keeps its slot until its code has ended, as any other does.
                await self.outlast(job)
            raise

    def drop(self, job: Job) -> bool:
        """Say whether a job had not begun; then it never will."""
        if not job.claim():
            return False
        self._unfinished -= 1
        return True

    async def outlast(self, job: Job) -> None:
        """Return when a job that runs, and whose future was cancelled, has ended; its result is lost."""
        if not job.finished:
            job.future = asyncio.get_running_loop().create_future()
            with suppress(BaseException):
                await job.future

    def resize(self, max_threads: int) -> None:
        """Run at most this many at once from now on; those that run are not interrupted."""
        self._max = max_threads
        self._start_threads()
        while self._threads > max_threads:
            self._threads -= 1
            self._jobs.put(None)

    def close(self) -> None:
        """Let the threads end as soon as what they run has ended."""
        self.resize(0)

    def _start_threads(self) -> None:
        while self._threads < self._max and self._threads < self._unfinished:
            self._threads += 1
            threading.Thread(target=self._work, name=f"salver-user_{self._threads}", daemon=True).start()

    def _work(self) -> None:
        jobs, done = self._jobs, self._done
        while (job := jobs.get()) is not None:
            if not job.claim():
                continue
            job.run()
            done.append(job)
            # Whoever sees False twice wakes twice, which does no harm.
            if not self._woken:
                self._woken = True
                self._wake()
            del job

    def _wake(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop has ended before the user's code did; nobody waits.
            self._done.clear()

    def _deliver(self) -> None:
        # Before the look at what is done: what is added after it wakes the loop again.
        self._woken = False
        done = self._done
        while done:
            job = done.popleft()
            self._unfinished -= 1
            job.finished = True
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
