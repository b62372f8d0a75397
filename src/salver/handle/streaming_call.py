"""One handle call whose answer is a stream of items."""

import asyncio
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from salver.handle.arguments import PICKLED, Attached, has_responses, pack_arguments
from salver.handle.call import GRACE_S
from salver.handle.channel import Channel
from salver.handle.errors import error_of
from salver.handle.items import Items
from salver.handle.outgoing import Hints, Outgoing
from salver.handle.references import NotSerializable
from salver.handle.request_context import RequestContext
from salver.handle.session import Session
from salver.schema.errors import (
    ProtocolError,
    ReplicaDiedError,
    RequestCancelledError,
    RequestTimeoutError,
    SalverError,
)
from salver.schema.ids import DeploymentID
from salver.transport.codec import loads
from salver.transport.payloads import Arrival, Payload, end_of, pack
from salver.transport.wire import AGAIN, CALL, CHUNK, CREDIT, ERROR, LARGE, CallHead, CreditHead

NOTHING: Final = object()
"""No item has come yet."""
OVER: Final = object()
"""There are no more items."""

_encode = msgspec.msgpack.Encoder().encode


class StreamingCall(Outgoing):
    """A call of a generator.

    It lives on the session's loop; `poll`, `more`, `wait`, `start` and `cancel` may be called in any thread.

    Attributes:
        is_cancelled: Somebody has cancelled it; its items are gone.
    """

    __slots__ = (
        "__weakref__",
        "_attached",
        "_body",
        "_deadline",
        "_error",
        "_head",
        "_is_answered",
        "_items",
        "_last",
        "_parent",
        "_session",
        "deployment",
        "is_cancelled",
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
        self.is_cancelled = False
        if head.multiplexed_model_id or head.session_id:
            self.hints = Hints(head.multiplexed_model_id, head.session_id)
        self._session = session
        self._head = head
        self._items = Items()
        self._error: BaseException | None = None
        self._last: BaseException | None = None
        self._is_answered = False
        self._body: bytes | Payload = b""
        self._attached: Attached | None = None
        try:
            if has_responses((*args, *kwargs.values())):
                self._pack(args, kwargs)
            else:
                self._body = pack((args, kwargs))
        except NotSerializable:
            self._pack(args, kwargs)
        self._parent: RequestContext | None = None
        self._deadline: float | None = None

    @property
    def is_over(self) -> bool:
        """Say whether the replica works on it no more."""
        return self._items.is_over

    def start(self, context: RequestContext) -> None:
        """Send the call for a request; from the session's loop, or from any thread."""
        if context.is_open:
            self._parent = context
            self._deadline = context.deadline
            if not context.adopt(self):
                self.is_cancelled = True
                self._end(None)
                return
        if asyncio._get_running_loop() is self._session.loop:
            self._begin()
        else:
            self._session.loop.call_soon_threadsafe(self._begin)

    # Reading

    def poll(self) -> Any:
        """Return the next item, or NOTHING while none has come, or OVER.

        Raises:
            RequestCancelledError: The call was cancelled.
            Exception: What ended the stream; once, after all items that came before.
        """
        if self.is_cancelled:
            raise RequestCancelledError(self.request_id)
        # Asked first: what came before the end is taken before it.
        is_over = self._items.is_over
        item = self._items.take()
        if item is None:
            if not is_over:
                return NOTHING
            error, self._error = self._error, None
            if error is not None:
                raise error
            return OVER
        if item.grant_bytes:
            self._on_loop(partial(self._grant, item.grant_bytes))
        try:
            return item.pickled.load() if isinstance(item.pickled, Arrival) else loads(item.pickled)
        except BaseException:
            # The user's own classes run while they are unpickled.
            self.cancel()
            raise

    async def more(self) -> None:
        """Return when there may be news; a task that is cancelled meanwhile cancels the call."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if loop is self._session.loop:
            self._items.call_back(partial(_settle, future))
        else:
            self._items.call_back(partial(_settle_elsewhere, loop, future))
        if self._items.has_news:
            return
        try:
            await future
        except asyncio.CancelledError:
            self.cancel()
            raise

    def wait(self) -> None:
        """Block until there may be news."""
        event = threading.Event()
        self._items.call_back(event.set)
        if not self._items.has_news:
            event.wait()

    # Stopping

    def cancel(self) -> None:
        """Stop the call, wherever it is."""
        self.is_cancelled = True
        if self._items.is_over:
            self._items.clear()
            return
        # A session that has ended has no calls.
        with suppress(RuntimeError):
            self._session.loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Cancel the call from the session's loop; part of Child."""
        self.is_cancelled = True
        if not self._items.is_over:
            self._withdraw()
            self._end(None)
        self._items.clear()

    def on_deadline(self, _now: float = 0.0) -> None:
        """Give up; part of Mortal."""
        if not self._items.is_over:
            self._withdraw()
            self._end(RequestTimeoutError(self.request_id))

    def _end(self, error: BaseException | None) -> None:
        """Note how it ended; the first end counts."""
        if self._items.is_over:
            return
        self._error = error
        self._body = b""
        # It refers to this; and what it has still to send, it sends by itself.
        self._attached = None
        self._items.end()
        if self._parent is not None:
            self._parent.children.discard(self)
            if self._deadline is not None:
                self._session.deadlines.forget(self)

    def _withdraw(self) -> None:
        if self._attached is not None:
            self._attached.drop()
        if self.order:
            self._session.routers.get(self.deployment).cancel(self)

    def _on_loop(self, work: partial[None]) -> None:
        if asyncio._get_running_loop() is self._session.loop:
            work()
        elif not self._items.is_over:
            with suppress(RuntimeError):
                self._session.loop.call_soon_threadsafe(work)

    def _grant(self, size_bytes: int) -> None:
        channel = self.channel
        if channel is not None and channel.in_flight.get(self.stream) is self:
            channel.connection.send(CREDIT, self.stream, _encode(CreditHead(size_bytes)))

    def _begin(self) -> None:
        if self._items.is_over:
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

    def _pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._body, form, responses = pack_arguments(args, kwargs, PICKLED)
        self._head = msgspec.structs.replace(self._head, form=form)
        if responses:
            self._attached = Attached(responses, len(form.places), self._proceed)

    def _proceed(self) -> None:
        """Route the call, if all responses that are arguments have come."""
        attached = self._attached
        if self.order or self._items.is_over or attached is None:
            return
        if (failed := attached.failed) is not None:
            attached.drop()
            self._end(failed.error())
        elif attached.is_complete:
            try:
                attached.pack_loaded()
            except Exception as error:  # noqa: BLE001 - the value's own code runs while it is pickled
                self._end(error)
            else:
                self._session.routers.get(self.deployment).route(self)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Send the call; part of Outgoing."""
        head = self._head
        if self._deadline is not None:
            head = msgspec.structs.replace(head, timeout_s=max(0.0, self._deadline - time.monotonic()))
        body = self._body
        if isinstance(body, Payload):
            channel.large_payloads.send(CALL, stream, _encode(head), body, flags)
        else:
            channel.connection.send(CALL, stream, _encode(head), body, flags)
        if self._attached is not None:
            self._attached.write(channel, stream)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Take an item, or the end; part of Outgoing."""
        self._body = b""
        if kind != CHUNK:
            self._last = error_of(body) if kind == ERROR else None
            self._on_last()
        elif flags & LARGE and self.channel is not None:
            self._on_large_item(self.channel, flags, body)
        else:
            self._items.put(body, len(body))

    def _on_large_item(self, channel: Channel, flags: int, body: bytes) -> None:
        if not channel.large_payloads.arrive(self.stream, flags, body):
            self._items.leave_gap()
            return
        arrival = channel.large_payloads.take(self.stream)
        if not flags & AGAIN:
            self._items.put(arrival, end_of(arrival.sizes))
            return
        if not self._items.has_gaps:
            raise ProtocolError("an item comes again that was not missing")
        self._items.fill_gap(arrival, end_of(arrival.sizes))
        if self._is_answered and not self._items.has_gaps:
            self._end(self._last)
            channel.forget(self)

    def _on_last(self) -> None:
        if self._items.has_gaps and self.channel is not None:
            self._is_answered = True
            self.channel.keep(self)
        else:
            self._end(self._last)

    def may_repeat(self) -> bool:
        """A call may have had effects; part of Outgoing."""
        return False

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._end(ReplicaDiedError(replica, self.request_id))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._end(error)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _settle_elsewhere(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    # Whoever waited there is gone with its loop.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, future)
