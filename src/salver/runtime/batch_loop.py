"""Runs batches: when one is ready and may run, its handler is called in a task of its own.

There is no task that waits for items, so there is none that can die: what arrives, a timer and the end of a batch each
look whether there is something to start. There is one timer at most, and none while all permits are taken.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from salver.lib.tasks import Tasks
from salver.runtime.batch_counters import BatchCounters
from salver.runtime.batch_handlers import Answering, Handler
from salver.runtime.batch_items import Item
from salver.runtime.batch_queue import BatchQueue, Limits
from salver.runtime.batch_settings import Settings
from salver.schema.errors import SalverError

_TIMER_GRAIN_S = 0.001
"""Event loops round their timers, some of them down."""
_MOST_ARRIVALS = 512


class Adapting(Protocol):
    """What chooses the limits of batches."""

    def limits(self, settings: Settings) -> Limits:
        """Return those of the next batch."""

    def batch_ended(self, arrivals: list[float], started: float, ended: float, waiting: list[float]) -> None:
        """Learn from a batch.

        Args:
            arrivals: When its items came.
            started: When its handler began.
            ended: When it was answered.
            waiting: When those items came that wait now.
        """


class BatchLoop:
    """The batches of one function, for one instance and one multiplexed model.

    Args:
        handler: Returns the user's handler, to be called with lists.
        answering: How its items get their answers.
        adapting: Chooses the limits; None for what the settings say.
    """

    def __init__(
        self,
        handler: Callable[[], Handler],
        answering: Answering,
        settings: Settings,
        counters: BatchCounters,
        adapting: Adapting | None,
        tasks: Tasks,
    ) -> None:
        self._handler = handler
        self._answering = answering
        self._settings = settings
        self._counters = counters
        self._adapting = adapting
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._queue: BatchQueue[Any] = BatchQueue(self._limits, self._refuse, settings.batch_size_fn)
        self._wake: asyncio.Handle | None = None
        self._wake_at = 0.0
        # When each of the running batches began.
        self.running: dict[asyncio.Task[None], float] = {}

    @property
    def is_idle(self) -> bool:
        """Say whether nothing waits or runs."""
        return not self.running and not len(self._queue)

    def add(self, item: Item) -> None:
        """Let an item wait for its batch."""
        self._counters.batch_queue_length += 1
        if self._queue.add(item) and len(self.running) < self._settings.max_concurrent_batches:
            self._set_timer()

    def withdraw(self, item: Item) -> None:
        """Forget an item whose caller has left; a batch that runs goes on."""
        if self._queue.discard(item):
            self._counters.batch_queue_length -= 1
        if len(self.running) < self._settings.max_concurrent_batches:
            self._set_timer()

    def _limits(self) -> Limits:
        return self._settings.limits if self._adapting is None else self._adapting.limits(self._settings)

    def _refuse(self, item: Item, error: BaseException) -> None:
        self._counters.batch_queue_length -= 1
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            cause, error = error, SalverError(f"batch_size_fn raised {type(error).__name__}.")
            error.__cause__ = cause
        item.fail(error)

    def _set_timer(self) -> None:
        """Look again when the next batch is due; for one that is due, after what this turn of the event loop brings."""
        due = self._queue.due()
        if due is None:
            self._clear_timer()
        elif self._wake is None or due < self._wake_at:
            self._clear_timer()
            self._wake_at = due
            is_due = due <= self._loop.time()
            self._wake = self._loop.call_soon(self._woken) if is_due else self._loop.call_at(due, self._woken)

    def _clear_timer(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _woken(self) -> None:
        self._wake = None
        self._start_batches(self._loop.time() + _TIMER_GRAIN_S)

    def _start_batches(self, now: float) -> None:
        while len(self.running) < self._settings.max_concurrent_batches:
            items = self._queue.take(now)
            if not items:
                self._set_timer()
                return
            self._start(items)
        self._clear_timer()

    def _start(self, items: list[Item]) -> None:
        began = self._loop.time()
        most = self._settings.max_batch_size if self._settings.batch_size_fn is None else None
        self._counters.batch_began(len(items), most, began - items[0].arrived)
        # In the first caller's context, so that what it traces is the parent of what the handler does.
        name = f"batch of {self._counters.function_name}"
        task = items[0].context.run(self._tasks.start, self._answer(items), name=name)
        self.running[task] = began
        task.add_done_callback(lambda task: self._ended(task, items))

    async def _answer(self, items: list[Item]) -> None:
        await self._answering(self._handler(), items)

    def _ended(self, task: asyncio.Task[None], items: list[Item]) -> None:
        began, ended = self.running.pop(task), self._loop.time()
        for item in items:
            # A task that is cancelled before its first step has told nobody.
            item.fail(SalverError("The batch was cancelled before its handler was called."))
        self._counters.batch_ended(ended - began)
        try:
            if self._adapting is not None:
                waiting = self._queue.arrivals(_MOST_ARRIVALS)
                self._adapting.batch_ended([item.arrived for item in items], began, ended, waiting)
                self._queue.refresh()
        finally:
            # Whatever was wrong above, those that wait must not wait for ever.
            self._start_batches(ended)
