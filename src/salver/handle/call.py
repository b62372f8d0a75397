"""One handle call: from arguments to a settled future."""

import asyncio
import concurrent.futures
import time
import weakref
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from salver.handle.channel import Channel
from salver.handle.outgoing import Description, Hints, Outgoing, Way
from salver.handle.request_context import RequestContext
from salver.handle.response import DeploymentResponse
from salver.handle.session import Session
from salver.lib.exceptions import PackedException, unpacked
from salver.schema.errors import ReplicaDiedError, RequestTimeoutError, SalverError, as_remote_error
from salver.schema.ids import DeploymentID
from salver.schema.urgency import DEFAULT_URGENCY
from salver.transport.codec import loads
from salver.transport.payloads import Payload, pack
from salver.transport.wire import CALL, ERROR, LARGE, RESULT, CallHead, ErrorBody

_encode_head = msgspec.msgpack.Encoder().encode
_decode_error = msgspec.msgpack.Decoder(ErrorBody).decode

Future = asyncio.Future[Any] | concurrent.futures.Future[Any]

GRACE_S = 0.1
"""A call is given up so long after its deadline: mostly its request is cancelled then, and the call with it."""


class Call(Outgoing):
    """A call of a deployment's method.

    Args:
        future: Settled with the result; an asyncio future of the session's loop, or a thread's.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_body",
        "_deadline",
        "_future",
        "_head",
        "_parent",
        "_resolving",
        "_session",
        "deployment",
        "request_id",
    )

    def __init__(
        self,
        session: Session,
        deployment: DeploymentID,
        head: CallHead,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        self.deployment = deployment
        self.request_id = head.request_id
        if head.multiplexed_model_id or head.session_id or head.urgency != DEFAULT_URGENCY:
            self.hints = Hints(head.multiplexed_model_id, head.session_id, head.urgency)
        self._session = session
        self._head = head
        self._body: bytes | Payload = b""
        self._args: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        if _has_responses(args) or (kwargs and _has_responses(kwargs.values())):
            self._args = (args, kwargs)
        else:
            self._body = pack((args, kwargs))
        self._future: Future
        self._parent: RequestContext | None = None
        self._deadline: float | None = None
        self._resolving: asyncio.Task[None] | None = None

    def start(self, context: RequestContext, *, in_loop: bool) -> None:
        """Send the call for a request; from the session's loop, or from any thread."""
        loop = self._session.loop
        if in_loop:
            self._future = loop.create_future()
            self._future.add_done_callback(self._settled)
        else:
            self._future = concurrent.futures.Future()
            # A thread's future keeps its callbacks: were this one a method, the result would live until the next
            # garbage collection, and with it the memory it was lent.
            self._future.add_done_callback(partial(_settled_anywhere, weakref.ref(self)))
        if context.is_open:
            self._parent = context
            self._deadline = context.deadline
            if not context.adopt(self):
                self._future.cancel()
                return
        if in_loop:
            self._begin()
        else:
            loop.call_soon_threadsafe(self._begin)

    def awaitable(self) -> Awaitable[Any]:
        """Return what a task of the running loop may await."""
        future = self._future
        loop = asyncio.get_running_loop()
        if isinstance(future, concurrent.futures.Future):
            return asyncio.wrap_future(future)
        return future if loop is self._session.loop else asyncio.wrap_future(self.thread_future())

    def thread_future(self) -> concurrent.futures.Future[Any]:
        """Return what a thread may block on."""
        if isinstance(self._future, concurrent.futures.Future):
            return self._future
        return asyncio.run_coroutine_threadsafe(_wait_for(self._future), self._session.loop)

    def cancel(self) -> None:
        """Cancel the future, which stops the call."""
        if isinstance(self._future, concurrent.futures.Future):
            self._future.cancel()
        else:
            self._session.loop.call_soon_threadsafe(self._future.cancel)

    def stop(self) -> None:
        """Cancel the future from the session's loop; part of Child."""
        self._future.cancel()

    def _begin(self) -> None:
        if self._future.done():
            return
        if self._deadline is not None:
            if time.monotonic() >= self._deadline:
                self.on_deadline()
                return
            self._session.deadlines.watch(self, self._deadline + GRACE_S)
        if self._args is None:
            self._way().route(self)
        else:
            work = self._resolve(*self._args)
            self._resolving = self._session.routers.tasks.start(work, name=f"arguments of {self.request_id}")

    def _way(self) -> Way:
        """Return what sends it to a replica."""
        return self._session.routers.get(self.deployment)

    async def _resolve(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Wait for responses among the arguments, then send the call with their values."""
        try:
            values = tuple([await _value_of(each) for each in args])
            named = {key: await _value_of(each) for key, each in kwargs.items()}
            self._body = pack((values, named))
        except asyncio.CancelledError:
            self._future.cancel()
        except Exception as error:  # noqa: BLE001 - what an earlier call raised belongs to whoever waits for this one
            self._fail(error)
        else:
            if not self._future.done():
                self._way().route(self)

    def on_deadline(self, _now: float = 0.0) -> None:
        """Give up; part of Mortal."""
        if not self._future.done():
            self._fail(RequestTimeoutError(self.request_id))
            self._stop()

    def settled(self, future: Future) -> None:
        """Note that its future is settled; from any thread."""
        self._leave_parent()
        if future.cancelled():
            self._session.loop.call_soon_threadsafe(self._stop)

    def _settled(self, future: Future) -> None:
        self._leave_parent()
        if future.cancelled():
            self._stop()
        else:
            # Mark the exception as seen: a response that nobody awaits is no error.
            future.exception()

    def _leave_parent(self) -> None:
        if self._parent is not None:
            self._parent.children.discard(self)
            if self._deadline is not None:
                self._session.deadlines.forget(self)

    def _stop(self) -> None:
        self._body = b""
        if self._resolving is not None:
            self._resolving.cancel()
        if self.order:
            self._way().cancel(self)

    def _succeed(self, value: Any) -> None:
        # A thread may cancel its future at any moment, so a look at its state before tells nothing.
        with suppress(concurrent.futures.InvalidStateError):
            if not self._future.done():
                self._future.set_result(value)

    def _fail(self, error: BaseException) -> None:
        with suppress(concurrent.futures.InvalidStateError):
            if not self._future.done():
                self._future.set_exception(error)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Send the call; part of Outgoing."""
        head = self._head
        if self._deadline is not None:
            head = msgspec.structs.replace(head, timeout_s=max(0.0, self._deadline - time.monotonic()))
        body = self._body
        if isinstance(body, Payload):
            channel.large_payloads.send(CALL, stream, _encode_head(head), body, flags)
        else:
            channel.connection.send(CALL, stream, _encode_head(head), body, flags)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Settle with what the replica answered; part of Outgoing."""
        arrival = None
        if kind == RESULT and flags & LARGE and self.channel is not None:
            arrival = self.channel.large_payloads.take(self.stream)
        self._body = b""
        if self._future.done():
            return
        if kind == RESULT:
            try:
                value = loads(body) if arrival is None else arrival.load()
            except Exception as error:  # noqa: BLE001 - the user's own classes run while they are unpickled
                self._fail(error)
            else:
                self._succeed(value)
        elif kind == ERROR:
            self._fail(_error_of(_decode_error(body)))

    def describe(self) -> Description:
        """Part of Outgoing."""
        return Description(self.request_id, self._head.method, self._head.route)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part of Outgoing."""
        args, kwargs = self._body.copied() if isinstance(self._body, Payload) else loads(self._body)
        return args, kwargs

    def may_repeat(self) -> bool:
        """A call may have had effects; part of Outgoing."""
        return False

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._body = b""
        self._fail(ReplicaDiedError(replica, self.request_id))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._body = b""
        self._fail(error)


def _has_responses(values: Iterable[Any]) -> bool:
    # Not `any`: its generator costs as much as the rest of a call's beginning.
    for each in values:  # noqa: SIM110
        if isinstance(each, DeploymentResponse):
            return True
    return False


def _settled_anywhere(call: weakref.ref[Call], future: Future) -> None:
    if (alive := call()) is not None:
        alive.settled(future)


def _error_of(error: ErrorBody) -> BaseException:
    try:
        cause = loads(error.pickled) if error.pickled else None
        if isinstance(cause, PackedException):
            cause = unpacked(cause)
    except Exception:  # noqa: BLE001 - a class that cannot be rebuilt here still has its traceback as text
        cause = None
    if isinstance(cause, SalverError) and error.kind == "salver":
        return cause
    return as_remote_error(cause, error.traceback or error.message)


async def _value_of(argument: Any) -> Any:
    if not isinstance(argument, DeploymentResponse):
        return argument
    # Shielded: others may wait for the same response, whatever becomes of this call.
    value, error = await asyncio.shield(_outcome_of(argument))
    if error is not None:
        raise error
    return value


async def _outcome_of(response: DeploymentResponse[Any]) -> tuple[Any, Exception | None]:
    # Raised from here, an error that comes after this call was cancelled would be reported as one that nobody saw.
    try:
        return await response, None
    except Exception as error:  # noqa: BLE001 - what an earlier call raised belongs to whoever waits for this one
        return None, error


async def _wait_for(future: "asyncio.Future[Any]") -> Any:
    return await asyncio.shield(future)
