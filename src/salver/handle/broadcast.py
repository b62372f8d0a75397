"""One call to every replica of a deployment.

Each call has a router of its own that knows one replica, and so waits in that replica's line when it is full, whatever
others wait for. Such a router opens a connection for itself and closes it after its call: broadcasts are rare.
"""

import asyncio
import concurrent.futures
from typing import Any, NamedTuple

from salver.handle.call import Call
from salver.handle.outgoing import Way
from salver.handle.request_context import RequestContext
from salver.handle.response import NOT_IN_A_LOOP, running_loop
from salver.handle.router import Router
from salver.handle.session import Session
from salver.schema.errors import DeploymentUnavailableError, ReplicaUnavailableError, RequestCancelledError, SalverError
from salver.schema.topics import ReplicaEntry, Replicas, TopicValue, replicas_topic

_GONE = "the replica is gone"


class Outcome(NamedTuple):
    """What one replica answered: a value, or else an error."""

    value: Any = None
    error: BaseException | None = None


class CallOfOne(Call):
    """A call to one replica and no other.

    Args:
        call: What is called.
        entry: The replica.
        router: Knows that replica only.
    """

    __slots__ = ("entry", "router")

    def __init__(self, call: Call, entry: ReplicaEntry, router: Router) -> None:
        super().__init__(call._session, call.deployment, call._head, (), {})
        self._take_arguments(call)
        self.entry = entry
        self.router = router

    def _way(self) -> Way:
        return self.router

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        if isinstance(error, DeploymentUnavailableError):
            error = ReplicaUnavailableError(self.entry.replica)
        super().on_refused(error)


class Broadcast:
    """The calls of one broadcast; made in any thread, run on the session's loop.

    Args:
        call: What every replica is called with.
        context: The request that it is made for.
    """

    def __init__(self, session: Session, call: Call, context: RequestContext) -> None:
        self._session = session
        self._call = call
        self._context = context
        self._topic = replicas_topic(call.deployment)
        self._calls: list[CallOfOne] = []
        self._known: asyncio.Future[Replicas]

    async def run(self) -> list[Outcome]:
        """Call all replicas that run when the first is known; return what became of it, in the replicas' order.

        Raises:
            DeploymentUnavailableError: There is no replica, and none will come.
        """
        self._known = asyncio.get_running_loop().create_future()
        self._session.link.subscribe(self._topic, self._on_value)
        try:
            replicas = await self._known
            if not replicas.replicas:
                raise DeploymentUnavailableError(self._call.deployment, replicas.unavailable or _GONE)
            for entry in replicas.replicas:
                self._begin(entry)
            return await asyncio.gather(*map(_outcome_of, self._calls))
        finally:
            self._session.link.unsubscribe(self._topic, self._on_value)
            for each in self._calls:
                each.stop()
                _leave(each.router)

    def _begin(self, entry: ReplicaEntry) -> None:
        router = self._session.routers.apart(self._call.deployment)
        router.update(Replicas(replicas=(entry,), unavailable=_GONE))
        call = CallOfOne(self._call, entry, router)
        call.start(self._context)
        self._calls.append(call)

    def _on_value(self, value: TopicValue) -> None:
        if not isinstance(value, Replicas):
            return
        if not self._known.done():
            if value.replicas or value.unavailable is not None:
                self._known.set_result(value)
            return
        # A replica that leaves finishes what it has and takes nothing new, so what waits for it would wait for ever.
        staying = {each.replica for each in value.replicas}
        for each in self._calls:
            if each.entry.replica not in staying:
                _leave(each.router)


async def _outcome_of(call: CallOfOne) -> Outcome:
    try:
        return Outcome(await call.response)
    except Exception as error:  # noqa: BLE001 - whatever a replica raised belongs to whoever asks for the results
        return Outcome(error=error)


def _leave(router: Router) -> None:
    router.update(Replicas(unavailable=_GONE))


class DeploymentBroadcastResponse:
    """The answers of all replicas to `handle.broadcast()`; the calls run whether or not anybody waits."""

    def __init__(self, broadcast: Broadcast, session: Session, request_id: str) -> None:
        self._future: concurrent.futures.Future[list[Outcome]] = asyncio.run_coroutine_threadsafe(
            broadcast.run(), session.loop
        )
        self._cancelled = False
        self.request_id = request_id

    def results(
        self, *, timeout_s: float | None = None, return_exceptions: bool = False, cancel_on_timeout: bool = True
    ) -> list[Any]:
        """Block until all replicas have answered; only outside of event loops.

        Args:
            timeout_s: Seconds to wait; None waits for ever.
            return_exceptions: Return errors in place of results; otherwise the first replica's that failed is raised.
            cancel_on_timeout: Cancel the calls when the time is over.

        Returns:
            One result for each replica that ran when the calls were made, in the order of the replicas' ids.

        Raises:
            TimeoutError: A replica did not answer within `timeout_s`.
            RequestCancelledError: The calls were cancelled.
            DeploymentUnavailableError: There is no replica, and none will come.
            Exception: What a replica raised; `ReplicaDiedError` or `ReplicaUnavailableError` of one that was lost.
        """
        if running_loop() is not None:
            raise RuntimeError(NOT_IN_A_LOOP)
        try:
            return self._checked(self._future.result(timeout_s), return_exceptions)
        except concurrent.futures.CancelledError:
            raise RequestCancelledError(self.request_id) from None
        except TimeoutError:
            if self._future.done():
                raise
            raise self._too_late(timeout_s, cancel_on_timeout) from None

    async def results_async(
        self, *, timeout_s: float | None = None, return_exceptions: bool = False, cancel_on_timeout: bool = True
    ) -> list[Any]:
        """Wait until all replicas have answered; see `results`."""
        answers = asyncio.wrap_future(self._future)
        done, _ = await asyncio.wait([answers], timeout=timeout_s)
        if not done:
            raise self._too_late(timeout_s, cancel_on_timeout)
        if answers.cancelled():
            raise RequestCancelledError(self.request_id)
        return self._checked(answers.result(), return_exceptions)

    def cancel(self) -> None:
        """Stop the calls, as far as that is possible; see `DeploymentResponse.cancel`."""
        self._cancelled = True
        self._future.cancel()

    def cancelled(self) -> bool:
        """Say whether `cancel()` was called."""
        return self._cancelled

    def _checked(self, outcomes: list[Outcome], return_exceptions: bool) -> list[Any]:
        if not return_exceptions:
            for each in outcomes:
                if each.error is not None:
                    raise each.error
        return [each.value if each.error is None else each.error for each in outcomes]

    def _too_late(self, timeout_s: float | None, cancel: bool) -> TimeoutError:
        if cancel:
            self.cancel()
        return TimeoutError(f"Not all replicas answered within {timeout_s}s (request {self.request_id}).")
