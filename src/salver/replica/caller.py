"""One caller's connection to a replica: frames in, admission, a task per request, frames out."""

import asyncio
import inspect
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from salver.handle.errors import error_body
from salver.handle.request_context import RequestContext, enter_request
from salver.lib.tracebacks import user_traceback
from salver.replica.asgi import AsgiServing
from salver.replica.attachments import Attachments
from salver.replica.generators import ItemStream
from salver.replica.http import Answer, ArrivingBody, WholeBody, decode_head, failure_outcome, make_request
from salver.replica.websocket import ABNORMAL, NO_APPLICATION, WebSocket
from salver.runtime.context import find_replica_context
from salver.runtime.ingress import Receive
from salver.schema.errors import NoSuchMethod, ProtocolError, RequestCancelledError, RequestTimeoutError
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.codec import loads
from salver.transport.encodings import pack_as
from salver.transport.framing import FrameConnection
from salver.transport.large_payloads import LargePayloads
from salver.transport.payloads import Arrival, Payload, pack
from salver.transport.wire import (
    ATTACHMENT,
    BROKEN,
    BYTES,
    CALL,
    CANCEL,
    CHUNK,
    CLOSE,
    CREDIT,
    END,
    ERROR,
    HELD,
    HTTP,
    LARGE,
    MORE,
    PART,
    PASS,
    REJECT,
    RESERVE,
    RESERVED,
    RESULT,
    ROOM,
    SOCKET,
    TEXT,
    WAIT,
    CallHead,
    CreditHead,
    HttpHead,
)

_SOCKET_KINDS = frozenset({TEXT, BYTES, CLOSE})
_INPUT_KINDS = _SOCKET_KINDS | {CHUNK, END}

if TYPE_CHECKING:
    from salver.replica.server import ReplicaServer

_decode_call = msgspec.msgpack.Decoder(CallHead).decode
_decode_credit = msgspec.msgpack.Decoder(CreditHead).decode

logger = logging.getLogger(LOGGER_NAME)


class Caller:
    """One caller's connection."""

    def __init__(self, server: "ReplicaServer") -> None:
        self._server = server
        self._connection: FrameConnection
        # None in place of the task: nobody waits for an answer any more.
        self._running: dict[int, asyncio.Task[Any] | None] = {}
        self._bodies: dict[int, ArrivingBody] = {}
        self._contexts: dict[int, RequestContext] = {}
        self._answers: dict[int, Answer | ItemStream | WebSocket] = {}
        self._large: LargePayloads | None = None
        self._attachments: Attachments | None = None
        loop = asyncio.get_running_loop()
        self._create_task, self._call_soon = loop.create_task, loop.call_soon

    def offer_slot(self) -> None:
        """Tell the caller that a slot is held for it."""
        self._connection.send(ROOM, 0)

    def close_sockets(self) -> None:
        """Send the clients of all WebSockets elsewhere."""
        for answer in self._answers.values():
            if isinstance(answer, WebSocket):
                answer.go_away()

    def cut_off(self) -> None:
        """Cancel the caller's requests and end its connection."""
        self._cancel_all()
        self._connection.abort()

    # FrameSink

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self._connection = connection
        self._server.callers.add(self)

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Start, feed or stop a request; part of FrameSink."""
        if kind != HTTP and kind != CALL and kind != SOCKET:  # noqa: PLR1714 - a tuple is slower
            if kind >= PART:
                self._on_payload(kind, flags, stream, header, body)
            else:
                self._on_control(kind, flags, stream, header, body)
            return
        arrival = None
        if flags & LARGE:
            if not self._large_payloads.arrive(stream, flags, body):
                return
            arrival = self._large_payloads.take(stream)
        admission = self._server.admission
        if not admission.enter(self, held=bool(flags & HELD)):
            self._connection.send(REJECT, stream, load=admission.taken)
            return
        if kind == HTTP:
            work = self._serve_http(stream, header, self._receive(stream, flags, body))
        elif kind == CALL:
            work = self._serve_call(stream, header, arrival or body)
        else:
            work = self._serve_socket(stream, header)
        self._running[stream] = self._create_task(work)

    def _on_payload(self, kind: int, flags: int, stream: int, header: bytes, body: bytes) -> None:
        if kind != ATTACHMENT:
            self._large_payloads.on_frame(kind, flags, stream, header, body)
            return
        raw: bytes | Arrival = body
        if flags & LARGE:
            if not self._large_payloads.arrive(stream, flags, body):
                return
            raw = self._large_payloads.take(stream)
        is_early = stream in self._running and stream not in self._contexts
        self._with_attachments.on_frame(stream, header, raw, failed=bool(flags & BROKEN), is_early=is_early)

    def _receive(self, stream: int, flags: int, body: bytes) -> Receive:
        """Return what user code reads a request's body with."""
        if not flags & MORE:
            return WholeBody(body).receive
        arriving = self._bodies[stream] = ArrivingBody(self._connection, stream, body)
        return arriving.receive

    def on_closed(self, error: Exception | None) -> None:
        """Stop what the caller can no longer hear of; part of FrameSink."""
        for stream in list(self._running):
            answer = self._answers.get(stream)
            if isinstance(answer, WebSocket) and answer.accepted:
                answer.leave(ABNORMAL, "")
            else:
                self._cancel(stream)
        if self._attachments is not None:
            self._attachments.close()
        if self._large is not None:
            self._large.close()
        self._server.left(self)

    def _on_control(self, kind: int, flags: int, stream: int, header: bytes, body: bytes) -> None:
        if kind == CANCEL:
            self._cancel(stream)
        elif kind in _INPUT_KINDS:
            self._on_input(kind, stream, header, body)
        elif kind == CREDIT:
            if (answer := self._answers.get(stream)) is not None:
                answer.grant(_credit(header))
        else:
            self._on_place(kind, flags, stream)

    def _on_place(self, kind: int, flags: int, stream: int) -> None:
        """Act on what is said of slots and places in line."""
        admission = self._server.admission
        if kind == PASS:
            admission.give_up(self)
        elif kind == WAIT and not admission.wait(self):
            self._connection.send(REJECT, 0, load=admission.taken)
        elif kind == RESERVE:
            answer = RESERVED if admission.reserve(self, held=bool(flags & HELD)) else REJECT
            self._connection.send(answer, stream, load=admission.taken)

    def _on_input(self, kind: int, stream: int, header: bytes, body: bytes) -> None:
        # What still comes for a request that was refused, or answered early, has no place to go.
        if kind in _SOCKET_KINDS:
            socket = self._answers.get(stream)
            if isinstance(socket, WebSocket):
                socket.on_frame(kind, header, body)
        elif (arriving := self._bodies.get(stream)) is not None:
            if kind == CHUNK:
                arriving.add(body)
            else:
                arriving.end()

    def _cancel_all(self) -> None:
        for stream in list(self._running):
            self._cancel(stream)

    def _cancel(self, stream: int) -> None:
        task = self._running.get(stream)
        answer = self._answers.get(stream)
        if task is None or (answer is not None and answer.ended):
            # What still runs after an answer is its background work, which the caller has no part in.
            return
        self._running[stream] = None
        task.cancel()
        if (context := self._contexts.get(stream)) is not None:
            context.cancel(self._call_soon)
        work: Any = task.get_coro()
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            # A task that is cancelled before its first step never comes to its `finally`.
            self._done(stream)

    async def _serve_http(self, stream: int, header: bytes, receive: Receive) -> None:
        server = self._server
        answer = Answer(self._connection, stream, server.admission)
        request_id = ""
        try:
            head = decode_head(header)
            request_id = head.request_id
            context = _context_of(head, server.app_name)
            context.answer = answer
            self._enter(stream, context, head.timeout_s)
            request = make_request(head, receive)
            result = server.asgi or await server.user_code.call_with_request(request)
            if isinstance(result, Response | AsgiServing):
                self._answers[stream] = answer
                await answer.run(result, request)
            else:
                answer.write(result)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and only this request fails
            if not self._was_cancelled(stream):
                self._http_failed(answer, error, request_id)
        finally:
            self._done(stream)

    async def _serve_socket(self, stream: int, header: bytes) -> None:
        server = self._server
        self._answers[stream] = socket = WebSocket(self._connection, stream, server.admission)
        request_id = ""
        try:
            head = decode_head(header)
            request_id = head.request_id
            self._enter(stream, _context_of(head, server.app_name), head.timeout_s)
            if server.asgi is None:
                socket.refuse(NO_APPLICATION)
            else:
                await socket.run(server.asgi, head)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and only this request fails
            if not self._was_cancelled(stream):
                socket.fail(error, request_id, expose=server.expose_tracebacks)
        finally:
            self._done(stream)

    @property
    def _large_payloads(self) -> LargePayloads:
        if self._large is None:
            self._large = LargePayloads(self._connection, lambda stream: True)
        return self._large

    @property
    def _with_attachments(self) -> Attachments:
        if self._attachments is None:
            self._attachments = Attachments()
        return self._attachments

    async def _serve_call(self, stream: int, header: bytes, body: bytes | Arrival) -> None:
        server = self._server
        request_id = method = ""
        try:
            head = _decode_call(header)
            request_id, method = head.request_id, head.method
            context = RequestContext(
                head.route, request_id, server.app_name, head.multiplexed_model_id, head.session_id, False, head.urgency
            )
            self._enter(stream, context, head.timeout_s)
            form = head.form
            if form is None:
                args, kwargs = loads(body) if isinstance(body, bytes) else body.load()
            else:
                args, kwargs = await self._with_attachments.load(stream, request_id, form, body)
            del body
            if head.is_streaming:
                await self._stream_items(stream, method, args, kwargs)
                return
            value = await server.user_code.call(method, args, kwargs)
            result = pack(value) if form is None else pack_as(value, form.response_encoding)
            # What they have of the caller's memory goes back before the answer, so that its next call can use it.
            del args, kwargs, value
            self._send_result(stream, result)
        except asyncio.CancelledError:
            if not self._was_cancelled(stream):
                self._send_error(stream, "salver", RequestCancelledError(request_id))
        except (NoSuchMethod, RequestTimeoutError) as error:
            self._send_error(stream, "salver", error)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and only this request fails
            text = self._send_error(stream, "user", error, request_id)
            logger.warning("request %s: %s raised\n%s", request_id, method, text)
        finally:
            self._done(stream)

    def _enter(self, stream: int, context: RequestContext, timeout_s: float | None) -> None:
        """Make this what user code knows of its request, from here on.

        Raises:
            RequestTimeoutError: Nobody waits for it any more.
        """
        if timeout_s is not None:
            if timeout_s <= 0:
                raise RequestTimeoutError(context.request_id)
            context.deadline = time.monotonic() + timeout_s
        self._contexts[stream] = context
        enter_request(context)

    async def _stream_items(self, stream: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        server = self._server
        items = self._answers[stream] = ItemStream(self._connection, stream, lambda: self._large_payloads)
        await items.run(await server.user_code.stream(method, args, kwargs))
        items.end(server.admission.taken - 1)

    def _send_result(self, stream: int, result: bytes | Payload) -> None:
        if self._connection.closed:
            return
        load = self._server.admission.taken - 1
        if self._large is not None:
            self._large.give_back()
        if isinstance(result, Payload):
            self._large_payloads.send(RESULT, stream, b"", result, 0, load)
        else:
            self._connection.send(RESULT, stream, b"", result, 0, load)

    def _was_cancelled(self, stream: int) -> bool:
        """Say whether the caller cancelled the request or is gone, so that nobody waits for an answer."""
        return stream in self._running and self._running[stream] is None

    def _http_failed(self, answer: Answer, error: BaseException, request_id: str) -> None:
        if answer.ended:
            logger.error("request %s was answered, then raised:\n%s", request_id, user_traceback(error))
            return
        outcome = failure_outcome(error, expose=self._server.expose_tracebacks)
        if outcome.status >= 500:  # noqa: PLR2004
            logger.error("request %s failed with %d:\n%s", request_id, outcome.status, user_traceback(error))
        if answer.started:
            answer.break_off(error)
        else:
            answer.write_outcome(outcome)

    def _send_error(self, stream: int, kind: str, error: BaseException, request_id: str = "") -> str:
        # Our own errors say where they come from.
        where = _where(request_id) if kind == "user" else ""
        text = user_traceback(error)
        body = error_body(kind, error, text, where)
        self._connection.send(ERROR, stream, b"", body, 0, self._server.admission.taken - 1)
        return text

    def _done(self, stream: int) -> None:
        self._running.pop(stream, None)
        self._answers.pop(stream, None)
        self._bodies.pop(stream, None)
        if self._attachments is not None:
            self._attachments.drop(stream)
        if (context := self._contexts.pop(stream, None)) is not None:
            context.is_over = True
        self._server.finished()


def _context_of(head: HttpHead, app_name: str) -> RequestContext:
    return RequestContext(
        head.route, head.request_id, app_name, head.multiplexed_model_id, head.session_id, True, head.urgency
    )


def _where(request_id: str) -> str:
    replica = find_replica_context()
    return f"In request {request_id}:" if replica is None else f"In replica {replica.replica_id}, request {request_id}:"


def _credit(header: bytes) -> int:
    try:
        return _decode_credit(header).size_bytes
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a CREDIT frame's head is malformed: {error}") from None
