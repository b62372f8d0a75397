"""The user's router at work: in a thread of its own, so that neither its errors nor its pauses are the caller's."""

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from salver.handle.request_router.api import (
    CHOICE_TIMEOUT_S,
    MAX_NUM_ROUTING_TASKS,
    Caller,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)
from salver.handle.request_router.loading import load_router_class
from salver.lib.tracebacks import user_traceback
from salver.schema.application import RouterSpec
from salver.schema.ids import ReplicaID
from salver.telemetry.logs import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

START_TIMEOUT_S: Final = 10.0
"""Requests wait so long for the class to be imported and made."""
REST_S: Final = 10.0
"""After a choice that took too long, user code is left alone for this time."""

_HOOKS: Final = (
    *("update_replicas", "on_request_routed", "on_send_request", "on_request_completed", "on_new_queue_len_info"),
    *("decrement_queue_len_cache", "on_replica_actor_died", "on_replica_actor_unavailable"),
)


class UserRouter:
    """Makes the user's router and asks it; the `Chooser` of a `CustomRouting`.

    Args:
        spec: The class and its arguments.
        loop: The caller's own.
    """

    def __init__(self, spec: RouterSpec, caller: Caller, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec
        self._caller = caller
        self._callers_loop = loop
        self._on_failed: Callable[[], None]
        self._router: RequestRouter | None = None
        self._hooks: frozenset[str] = frozenset()
        self._replicas: Mapping[ReplicaID, RunningReplica] = {}
        self._complaints: set[str] = set()
        self._resting_until = 0.0
        self._closed = False
        self._timeout_s = CHOICE_TIMEOUT_S
        self._most_tasks = MAX_NUM_ROUTING_TASKS
        self._loop = asyncio.new_event_loop()
        self._ready = asyncio.Event()

    def start(self, on_failed: Callable[[], None]) -> None:
        """Begin to make the router.

        Args:
            on_failed: Called in the caller's loop when there will be none: its class cannot be loaded or made.
        """
        self._on_failed = on_failed
        threading.Thread(target=self._run, name=f"router of {self._caller.deployment.path}", daemon=True).start()

    # Chooser

    @property
    def max_tasks(self) -> int:
        """Part of Chooser."""
        return max(1, min(self._most_tasks, 2 * len(self._replicas)))

    async def choose(self, replicas: list[RunningReplica], request: PendingRequest) -> list[list[ReplicaID]] | None:
        """Part of Chooser."""
        if not self._ready.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), START_TIMEOUT_S)
        if self._router is None or self._closed or self._callers_loop.time() < self._resting_until:
            return None
        work = asyncio.run_coroutine_threadsafe(_answer(self._router, replicas, request), self._loop)
        answer = asyncio.wrap_future(work)
        done, _ = await asyncio.wait([answer], timeout=self._timeout_s)
        if not done:
            answer.cancel()
            self._resting_until = self._callers_loop.time() + REST_S
            self.complain("hang", f"took longer than {self._timeout_s:g}s")
            return None
        outcome = answer.result()
        if isinstance(outcome, BaseException):
            self.complain(type(outcome).__name__, f"raised\n{user_traceback(outcome)}")
            return None
        return outcome

    def complain(self, kind: str, problem: str) -> None:
        """Part of Chooser."""
        if kind not in self._complaints:
            self._complaints.add(kind)
            logger.error(
                "The request router of %s: choose_replicas() %s\nTwo choices are made in its place for such requests.",
                self._caller.deployment,
                problem,
            )

    def update(self, replicas: Mapping[ReplicaID, RunningReplica]) -> None:
        """Part of Chooser."""
        self._replicas = replicas
        self._call_soon(self._set_replicas, replicas)

    def hook(self, name: str, *args: Any) -> None:
        """Part of Chooser."""
        if name in self._hooks and self._callers_loop.time() >= self._resting_until:
            self._call_soon(self._call_hook, name, args)

    def close(self) -> None:
        """Part of Chooser."""
        self._closed = True
        self._call_soon(self._loop.stop)

    # The thread

    def _run(self) -> None:
        loop = self._loop
        making = loop.create_task(self._make())
        loop.run_forever()
        loop.run_until_complete(_end(asyncio.all_tasks(loop) | {making}))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def _make(self) -> None:
        try:
            router = load_router_class(self._spec)(self._caller)
            started = router.initialize_state(**self._spec.kwargs)
            if inspect.isawaitable(started):
                await started
            self._timeout_s = float(router.choice_timeout_s)
            self._most_tasks = int(router.max_num_routing_tasks_cap)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
            logger.error(
                "The request router of %s cannot be used here; two choices are made in its place:\n%s",
                self._caller.deployment,
                user_traceback(error),
            )
            self._tell(self._failed)
            return
        self._hooks = frozenset(
            name for name in _HOOKS if getattr(type(router), name) is not getattr(RequestRouter, name)
        )
        self._router = router
        self._set_replicas(self._replicas)
        self._tell(self._ready.set)

    def _set_replicas(self, replicas: Mapping[ReplicaID, RunningReplica]) -> None:
        if self._router is not None:
            self._router._curr_replicas = replicas
            if "update_replicas" in self._hooks:
                self._call_hook("update_replicas", (list(replicas.values()),))

    def _call_hook(self, name: str, args: tuple[Any, ...]) -> None:
        try:
            getattr(self._router, name)(*args)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
            text = user_traceback(error)
            self._tell(lambda: self._complain_of_hook(name, text))

    def _complain_of_hook(self, name: str, text: str) -> None:
        if name not in self._complaints:
            self._complaints.add(name)
            logger.error("The request router of %s: %s() raised\n%s", self._caller.deployment, name, text)

    def _failed(self) -> None:
        self._ready.set()
        self._on_failed()

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            self._callers_loop.call_soon_threadsafe(callback)

    def _call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # it was closed
            self._loop.call_soon_threadsafe(callback, *args)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(
    router: RequestRouter, replicas: list[RunningReplica], request: PendingRequest
) -> list[list[ReplicaID]] | BaseException:
    try:
        answer: Any = router.choose_replicas(replicas, request)
        if inspect.isawaitable(answer):
            answer = await answer
        return _ids_in(answer)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
        return error


def _ids_in(answer: Any) -> list[list[ReplicaID]]:
    try:
        groups = [list(group) for group in answer]
    except TypeError:
        groups = [[None]]
    if not all(isinstance(each, RunningReplica) for group in groups for each in group):
        raise TypeError(f"choose_replicas() returned {answer!r:.200}: expected a list of lists of RunningReplica")
    return [[each.replica_id for each in group] for group in groups]
