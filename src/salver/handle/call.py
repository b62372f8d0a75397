"""One handle call: from arguments to a settled response."""

import asyncio
import logging
import time
from typing import Any

import msgspec

from salver.handle.arguments import PICKLED, Attached, has_responses, pack_arguments, unpack_arguments, unpackable
from salver.handle.channel import Channel
from salver.handle.outgoing import Description, Hints, Outgoing, Way
from salver.handle.references import NotSerializable
from salver.handle.request_context import RequestContext
from salver.handle.response import DeploymentResponse
from salver.handle.session import Session
from salver.schema.errors import (
    BackPressureError,
    ReplicaDiedError,
    RequestCancelledError,
    RequestTimeoutError,
    SalverError,
)
from salver.schema.ids import DeploymentID
from salver.schema.urgency import DEFAULT_URGENCY
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.payloads import Payload, pack
from salver.transport.wire import CALL, ERROR, LARGE, RESULT, CallHead

_encode_head = msgspec.msgpack.Encoder().encode
_running_loop = asyncio._get_running_loop

logger = logging.getLogger(LOGGER_NAME)

GRACE_S = 0.1
"""A call is given up so long after its deadline: mostly its request is cancelled then, and the call with it."""


class Call(Outgoing):
    """A call of a deployment's method.

    Args:
        serialization: How arguments and results travel, by the names that `handle.options()` takes; None for the usual.

    Attributes:
        response: What its caller waits for.

    Raises:
        Exception: An argument cannot be packed.
    """

    __slots__ = (
        "_attached",
        "_body",
        "_deadline",
        "_head",
        "_parent",
        "_session",
        "deployment",
        "response",
    )

    def __init__(
        self,
        session: Session,
        deployment: DeploymentID,
        head: CallHead,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        serialization: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.deployment = deployment
        self.response: DeploymentResponse[Any] = DeploymentResponse(session.loop, head.request_id)
        self._session = session
        self._head = head
        self._parent: RequestContext | None = None
        self._deadline: float | None = None
        self._attached: Attached | None = None
        if head.multiplexed_model_id or head.session_id or head.urgency != DEFAULT_URGENCY:
            self.hints = Hints(head.multiplexed_model_id, head.session_id, head.urgency)
        self._body: bytes | Payload
        try:
            if serialization is not None or has_responses(args) or (kwargs and has_responses(kwargs.values())):
                self._pack(args, kwargs, serialization or PICKLED)
            else:
                self._body = pack((args, kwargs))
        except NotSerializable:
            self._pack(args, kwargs, serialization or PICKLED)
        except Exception as error:
            used, _ = serialization or PICKLED
            raise unpackable(args, kwargs, str(deployment), error, used) from error

    @property
    def request_id(self) -> str:
        """Return the id of the request that it is made for."""
        return self._head.request_id

    def start(self, context: RequestContext) -> None:
        """Send the call for a request; from the session's loop, or from any thread."""
        self.response.call = self
        if not context.is_over and context.is_open:
            self._parent = context
            self._deadline = context.deadline
            if not context.adopt(self):
                self._fail(RequestCancelledError(self._head.request_id))
                return
        if _running_loop() is self._session.loop:
            self._begin()
        else:
            self._session.loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """Cancel it; from any thread."""
        if _running_loop() is self._session.loop:
            self.stop()
        else:
            self._session.loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Cancel it from the session's loop; part of Child."""
        if not self.response.settled:
            self._stop()
            self._fail(RequestCancelledError(self._head.request_id))

    def whereabouts(self) -> str:
        """Say where the call is, as the end of a sentence."""
        if self._attached is not None and not self._attached.is_complete:
            return ": the call waits for a response among its arguments"
        if self.channel is None:
            return ": no replica has been free for it yet"
        return f": replica {self.channel.name} is working on it"

    def _pack(self, args: tuple[Any, ...], kwargs: dict[str, Any], serialization: tuple[str, str]) -> None:
        self._body, form, responses = pack_arguments(args, kwargs, serialization)
        self._head = msgspec.structs.replace(self._head, form=form)
        if responses:
            self._attached = Attached(responses, len(form.places), self._proceed)

    def _take_arguments(self, other: "Call") -> None:
        """Have the same arguments as another call, which is not started itself."""
        self._body, self._head = other._body, other._head
        if other._attached is not None:
            self._attached = other._attached.again(self._proceed)

    def _begin(self) -> None:
        if self.response.settled:
            return
        if self._deadline is not None:
            if time.monotonic() >= self._deadline:
                self.on_deadline()
                return
            self._session.deadlines.watch(self, self._deadline + GRACE_S)
        if self._attached is None:
            self._way().route(self)
        else:
            self._attached.watch()
            self._proceed()

    def _way(self) -> Way:
        """Return what sends it to a replica."""
        return self._session.routers.get(self.deployment)

    def _proceed(self) -> None:
        """Route the call, if all responses that are arguments have come."""
        attached = self._attached
        if self.order or self.response.settled or attached is None:
            return
        if (failed := attached.failed) is not None:
            attached.drop()
            self._settle()
            self.response.settle_as(failed)
        elif attached.is_complete:
            try:
                attached.pack_loaded()
            except Exception as error:  # noqa: BLE001 - the value's own code runs while it is pickled
                self._fail(error)
            else:
                self._way().route(self)

    def on_deadline(self, _now: float = 0.0) -> None:
        """Give up; part of Mortal."""
        if not self.response.settled:
            self._stop()
            self._fail(RequestTimeoutError(self._head.request_id))

    def _settle(self) -> None:
        """Let go of everything; the response is settled next."""
        self._body = b""
        # It refers to this; and what it has still to send, it sends by itself.
        self._attached = None
        self.response.call = None
        if self._parent is not None:
            self._parent.children.discard(self)
            if self._deadline is not None:
                self._session.deadlines.forget(self)

    def _stop(self) -> None:
        if self._attached is not None:
            self._attached.drop()
        if self.order:
            self._way().cancel(self)

    def _fail(self, error: BaseException) -> None:
        if not self.response.settled:
            self._settle()
            self.response.settle_failed(error)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Send the call; part of Outgoing."""
        head = self._head
        if self._deadline is not None:
            head = msgspec.structs.replace(head, timeout_s=max(0.0, self._deadline - time.monotonic()))
        header = _encode_head(head)
        body = self._body
        if isinstance(body, bytes):
            channel.connection.send(CALL, stream, header, body, flags)
        else:
            channel.large_payloads.send(CALL, stream, header, body, flags)
        if self._attached is not None:
            self._attached.write(channel, stream)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Settle with what the replica answered; part of Outgoing."""
        response = self.response
        arrival = None
        if flags & LARGE and kind == RESULT and self.channel is not None:
            arrival = self.channel.large_payloads.take(self.stream)
        if response.settled:
            return
        if response.cancelled():
            # In another thread; whoever cancelled it shall not see a result after that.
            self._fail(RequestCancelledError(response.request_id))
        elif kind == RESULT:
            self._settle()
            if self._head.form is not None:
                response.encoding = self._head.form.response_encoding
            response.settle(body if arrival is None else arrival)
        elif kind == ERROR:
            self._settle()
            response.settle_failed(body)

    def describe(self) -> Description:
        """Part of Outgoing."""
        return Description(self.request_id, self._head.method, self._head.route)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part of Outgoing."""
        body = self._body
        return unpack_arguments(body if isinstance(body, bytes) else body.copied(), self._head.form, self._attached)

    def may_repeat(self) -> bool:
        """A call may have had effects; part of Outgoing."""
        return False

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._fail(ReplicaDiedError(replica, self._head.request_id))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        if isinstance(error, BackPressureError):
            logger.warning("request %s to %s: %s", self._head.request_id, self.deployment, error.message)
        self._fail(error)
