"""All batches of one function, or of one instance's method: their settings, counters and loops."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import ref

from salver.handle.request_context import current_request
from salver.lib.tasks import Tasks
from salver.runtime.adaptive_batching import AdaptiveBatching
from salver.runtime.batch_arguments import Arguments
from salver.runtime.batch_counters import BatchCounters
from salver.runtime.batch_handlers import answer_batch, answer_streams
from salver.runtime.batch_items import Item, StreamItem
from salver.runtime.batch_loop import BatchLoop
from salver.runtime.batch_settings import Settings
from salver.runtime.context import find_max_ongoing_requests, find_replica_tasks
from salver.telemetry.logs import LOGGER_NAME

MOST_IDLE_LOOPS = 32
"""What was learned for so many multiplexed models is kept while they have nothing to do."""

logger = logging.getLogger(LOGGER_NAME)


class Batches:
    """Batches of one function, or of one instance's method.

    Args:
        function: The user's handler.
        name: How it is called in counters and logs.
        settings: What its decorator says; changes are for this instance only.
        instance: Returns the instance, or None when it is gone; None for a function.
        streams: It is an asynchronous generator.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        settings: Settings,
        instance: Callable[[], Any] | None,
        *,
        streams: bool,
    ) -> None:
        self.settings = replace(settings)
        self.counters = BatchCounters(name)
        self.instance = instance
        self._function = function
        self._arguments = Arguments(function, is_method=instance is not None)
        self._kind: type[Item] = StreamItem if streams else Item
        self._answering: Any = answer_streams if streams else answer_batch
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._loops: dict[str, BatchLoop] = {}
        self._tasks: Tasks
        self._has_warned = False

    def add(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, BatchLoop]:
        """Put a call into the queue; return it, and where it waits.

        Raises:
            TypeError: The handler does not take these arguments.
        """
        event_loop = asyncio.get_running_loop()
        if event_loop is not self._event_loop:
            self._move_to(event_loop)
        shape, values = self._arguments.taken(args, kwargs)
        request = current_request()
        item = self._kind(event_loop, shape, values, request)
        # Models do not mix, so each has a loop of its own, with its own permits.
        loop = self._loops.get(request.multiplexed_model_id) or self._new_loop(request.multiplexed_model_id)
        loop.add(item)
        return item, loop

    @property
    def is_alive(self) -> bool:
        """Say whether batches are run in the running event loop."""
        return self._event_loop is asyncio.get_running_loop()

    def running(self) -> dict["asyncio.Task[None]", float]:
        """Return the tasks of the handlers that run, and when they began, in loop time."""
        return {task: began for loop in self._loops.values() for task, began in loop.running.items()}

    def stack(self) -> str | None:
        """Return where the handler stands that has run for longest; None while none runs."""
        running = self.running()
        if not running:
            return None
        return _stack_of(min(running, key=running.__getitem__))

    def _handler(self) -> Callable[..., Any]:
        if self.instance is None:
            return self._function
        instance = self.instance()
        if instance is None:
            raise RuntimeError(f"The instance of {self.counters.function_name} is gone, and with it its batches.")
        bound: Callable[..., Any] = self._function.__get__(instance)
        return bound

    def _move_to(self, event_loop: asyncio.AbstractEventLoop) -> None:
        # What another event loop has begun ends there, or has ended with it.
        if self._event_loop is not None and self._event_loop.is_closed():
            self.counters.batch_queue_length = 0
        self._event_loop = event_loop
        self._loops = {}
        owner = find_replica_tasks()
        self._tasks = Tasks(on_error=_report) if owner is None else owner
        self._warn_if_never_full()

    def _new_loop(self, model_id: str) -> BatchLoop:
        if len(self._loops) >= MOST_IDLE_LOOPS:
            for idle in [known for known, loop in self._loops.items() if loop.is_idle]:
                del self._loops[idle]
        goal = self.settings.target_latency_s
        adapting = None if goal is None else AdaptiveBatching(goal)
        loop = self._loops[model_id] = BatchLoop(
            self._handler, self._answering, self.settings, self.counters, adapting, self._tasks
        )
        return loop

    def _warn_if_never_full(self) -> None:
        limit, settings = find_max_ongoing_requests(), self.settings
        needed = settings.max_batch_size * settings.max_concurrent_batches
        if limit is None or self._has_warned or limit >= needed or settings.batch_size_fn is not None:
            return
        self._has_warned = True
        logger.warning(
            "%s: batches will never be full: max_ongoing_requests is %d, but max_batch_size (%d) × "
            "max_concurrent_batches (%d) is %d. Raise max_ongoing_requests of the deployment to at least that.",
            *(self.counters.function_name, limit),
            *(settings.max_batch_size, settings.max_concurrent_batches, needed),
        )


class BatchesByInstance:
    """The batches of a method, one set for each instance, which does not keep the instance alive.

    Instances are told apart by identity: they may be equal, or have no hash.
    """

    def __init__(self) -> None:
        self._batches: dict[int, Batches] = {}

    def find(self, instance: Any) -> Batches | None:
        """Return the batches of an instance, if it has any."""
        found = self._batches.get(id(instance))
        return found if found is not None and found.instance is not None and found.instance() is instance else None

    def add(self, instance: Any, make: Callable[[Callable[[], Any]], Batches]) -> Batches:
        """Make the batches of an instance, of what returns it as long as it lives."""
        key = id(instance)
        reference: Callable[[], Any]
        try:
            reference = ref(instance, lambda gone: self._forget(key, gone))
        except TypeError:
            # Its class has slots and no weak references; a replica has one instance, as long as it lives.
            reference = lambda: instance  # noqa: E731
        batches = self._batches[key] = make(reference)
        return batches

    def _forget(self, key: int, gone: Any) -> None:
        # Another instance may have its place already.
        if (known := self._batches.get(key)) is not None and known.instance is gone:
            del self._batches[key]


def _stack_of(task: "asyncio.Task[None]") -> str:
    """Return where a task stands, as text; the task itself knows only the outermost of its coroutines."""
    frames = []
    inner: Any = task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        frames.append((frame, frame.f_lineno))
        inner = inner.cr_await
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
