"""One handle call: from arguments to a settled response."""

import asyncio
import logging
import time
from typing import Any

import msgspec

from salver.handle.arguments import Attached, has_responses, pack_arguments, unpackable
from salver.handle.channel import Channel
from salver.handle.options import CallOptions
from salver.handle.outgoing import Hints, Outgoing
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
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.payloads import Payload, pack
from salver.transport.wire import CALL, ERROR, LARGE, RESULT, CallForm, CallHead

_encode_head = msgspec.msgpack.Encoder().encode
_running_loop = asyncio._get_running_loop
_PICKLED = ("cloudpickle", "cloudpickle")

logger = logging.getLogger(LOGGER_NAME)

GRACE_S = 0.1
"""A call is given up so long after its deadline: mostly its request is cancelled then, and the call with it."""


class Call(Outgoing):
    """A call of a deployment's method.

    Args:
        request_id: Of the request that it is made for.

    Attributes:
        response: What its caller waits for.

    Raises:
        Exception: An argument cannot be packed.
    """

    __slots__ = (
        "_attached",
        "_body",
        "_deadline",
        "_form",
        "_options",
        "_parent",
        "_route",
        "_session",
        "deployment",
        "response",
    )

    def __init__(
        self,
        session: Session,
        deployment: DeploymentID,
        options: CallOptions,
        request_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        self.deployment = deployment
        self.response: DeploymentResponse[Any] = DeploymentResponse(session.loop, request_id)
        self._session = session
        self._options = options
        self._route = ""
        self._parent: RequestContext | None = None
        self._deadline: float | None = None
        self._form: CallForm | None = None
        self._attached: Attached | None = None
        if options.multiplexed_model_id or options.session_id:
            self.hints = Hints(options.multiplexed_model_id, options.session_id)
        self._body: bytes | Payload
        try:
            if options.serialization is not None or has_responses(args) or (kwargs and has_responses(kwargs.values())):
                self._pack(args, kwargs)
            else:
                self._body = pack((args, kwargs))
        except NotSerializable:
            self._pack(args, kwargs)
        except Exception as error:
            serialization, _ = options.serialization or _PICKLED
            raise unpackable(args, kwargs, str(deployment), error, serialization) from error

    def start(self, context: RequestContext) -> None:
        """Send the call for a request; from the session's loop, or from any thread."""
        self.response.call = self
        self._route = context.route
        if not context.is_over and context.is_open:
            self._parent = context
            self._deadline = context.deadline
            if not context.adopt(self):
                self._fail(RequestCancelledError(self.response.request_id))
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
            self._fail(RequestCancelledError(self.response.request_id))

    def whereabouts(self) -> str:
        """Say where the call is, as the end of a sentence."""
        if self._attached is not None and not self._attached.is_complete:
            return ": the call waits for a response among its arguments"
        if self.channel is None:
            return ": no replica has been free for it yet"
        return f": replica {self.channel.name} is working on it"

    def _pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._body, self._form, responses = pack_arguments(args, kwargs, self._options.serialization or _PICKLED)
        if responses:
            self._attached = Attached(responses, len(self._form.places), self._proceed)

    def _begin(self) -> None:
        if self.response.settled:
            return
        if self._deadline is not None:
            if time.monotonic() >= self._deadline:
                self.on_deadline()
                return
            self._session.deadlines.watch(self, self._deadline + GRACE_S)
        if self._attached is None:
            self._session.routers.get(self.deployment).route(self)
        else:
            self._attached.watch()
            self._proceed()

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
                self._session.routers.get(self.deployment).route(self)

    def on_deadline(self, _now: float = 0.0) -> None:
        """Give up; part of Mortal."""
        if not self.response.settled:
            self._stop()
            self._fail(RequestTimeoutError(self.response.request_id))

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
            self._session.routers.get(self.deployment).cancel(self)

    def _fail(self, error: BaseException) -> None:
        if not self.response.settled:
            self._settle()
            self.response.settle_failed(error)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Send the call; part of Outgoing."""
        options = self._options
        deadline = self._deadline
        header = _encode_head(
            CallHead(
                options.method_name,
                self.response.request_id,
                self._route,
                self.deployment.app_name,
                options.multiplexed_model_id,
                None if deadline is None else max(0.0, deadline - time.monotonic()),
                options.session_id,
                self._form,
            )
        )
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
            if self._form is not None:
                response.encoding = self._form.response_encoding
            response.settle(body if arrival is None else arrival)
        elif kind == ERROR:
            self._settle()
            response.settle_failed(body)

    def may_repeat(self) -> bool:
        """A call may have had effects; part of Outgoing."""
        return False

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._fail(ReplicaDiedError(replica, self.response.request_id))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        if isinstance(error, BackPressureError):
            logger.warning("request %s to %s: %s", self.response.request_id, self.deployment, error.message)
        self._fail(error)
