"""The replica's side of its callers' connections: frames in, admission, a task per request, frames out."""

import asyncio
import inspect
import logging
from contextlib import suppress
from typing import Any

import msgspec
from starlette.responses import Response

from salver.handle.request_context import RequestContext, enter_request
from salver.lib.exceptions import PackedException, packed, pickles_itself
from salver.lib.tracebacks import user_traceback
from salver.replica.admission import Admission
from salver.replica.asgi import AsgiServing
from salver.replica.http import Answer, decode_head, failure_outcome, make_request
from salver.replica.user_code import UserCode
from salver.schema.errors import NoSuchMethod, ProtocolError, RequestCancelledError
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.codec import dumps, loads
from salver.transport.framing import FrameConnection
from salver.transport.wire import (
    CALL,
    CANCEL,
    CREDIT,
    ERROR,
    HELD,
    HTTP,
    PASS,
    REJECT,
    RESULT,
    ROOM,
    WAIT,
    CallHead,
    CreditHead,
    ErrorBody,
)

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(CallHead).decode
_decode_credit = msgspec.msgpack.Decoder(CreditHead).decode

logger = logging.getLogger(LOGGER_NAME)


class ReplicaServer:
    """Runs the requests of all callers against one copy of the user's code.

    Args:
        app_name: The application it is part of.
        expose_tracebacks: Put tracebacks into 500 answers.

    Attributes:
        asgi: The application that `@ingress` put in front of the class, which answers all HTTP requests; or None.
    """

    def __init__(
        self,
        user_code: UserCode,
        *,
        app_name: str,
        max_ongoing_requests: int,
        expose_tracebacks: bool,
    ) -> None:
        self.user_code = user_code
        self.asgi: AsgiServing | None = None
        self.app_name = app_name
        self.expose_tracebacks = expose_tracebacks
        self.admission: Admission[Caller] = Admission(max_ongoing_requests, _offer)
        self.callers: set[Caller] = set()
        self._idle = asyncio.Event()

    def accept(self) -> "Caller":
        """Return the sink of a new connection."""
        return Caller(self)

    def change_limit(self, max_ongoing_requests: int) -> None:
        """Work on at most this many requests at once from now on; none is interrupted."""
        self.user_code.change_max_threads(max_ongoing_requests)
        self.admission.change_limit(max_ongoing_requests)

    async def drain(self) -> None:
        """Refuse what is new and return when the last request is finished and no caller has a connection.

        A caller closes its connection once it knows that this replica is leaving and has its last answer, so no
        request can be on its way when this returns.
        """
        self.admission.close()
        while self.admission.running or self.callers:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Cancel what runs and end all connections, from which callers learn that there will be no answer."""
        for caller in list(self.callers):
            caller.cut_off()

    def finished(self) -> None:
        """A request is finished."""
        self.admission.leave()
        if self.admission.closed:
            self._idle.set()

    def left(self, caller: "Caller") -> None:
        """A caller's connection is closed."""
        self.callers.discard(caller)
        self.admission.forget(caller)
        self._idle.set()


class Caller:
    """One caller's connection."""

    def __init__(self, server: ReplicaServer) -> None:
        self._server = server
        self._connection: FrameConnection
        # None in place of the task: nobody waits for an answer any more.
        self._running: dict[int, asyncio.Task[Any] | None] = {}
        self._answers: dict[int, Answer] = {}
        self._create_task = asyncio.get_running_loop().create_task

    def offer_slot(self) -> None:
        """Tell the caller that a slot is held for it."""
        self._connection.send(ROOM, 0)

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
        if kind != HTTP and kind != CALL:  # noqa: PLR1714 - a tuple is slower
            self._on_control(kind, stream, header)
            return
        admission = self._server.admission
        if not admission.enter(self, held=bool(flags & HELD)):
            self._connection.send(REJECT, stream, load=admission.taken)
            return
        work = self._serve_http(stream, header, body) if kind == HTTP else self._serve_call(stream, header, body)
        self._running[stream] = self._create_task(work)

    def on_closed(self, error: Exception | None) -> None:
        """Stop what the caller can no longer hear of; part of FrameSink."""
        self._cancel_all()
        self._server.left(self)

    def _on_control(self, kind: int, stream: int, header: bytes) -> None:
        if kind == CANCEL:
            self._cancel(stream)
        elif kind == CREDIT:
            if (answer := self._answers.get(stream)) is not None:
                answer.grant(_credit(header))
        elif kind == PASS:
            self._server.admission.give_up(self)
        elif kind == WAIT:
            admission = self._server.admission
            if not admission.wait(self):
                self._connection.send(REJECT, 0, load=admission.taken)

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
        work: Any = task.get_coro()
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            # A task that is cancelled before its first step never comes to its `finally`.
            self._done(stream)

    async def _serve_http(self, stream: int, header: bytes, body: bytes) -> None:
        server = self._server
        answer = Answer(self._connection, stream, server.admission)
        request_id = ""
        try:
            head = decode_head(header)
            request_id = head.request_id
            enter_request(RequestContext(head.route, request_id, server.app_name, "", True))
            request = make_request(head, body)
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

    async def _serve_call(self, stream: int, header: bytes, body: bytes) -> None:
        server = self._server
        request_id = method = ""
        try:
            head = _decode_call(header)
            request_id, method = head.request_id, head.method
            enter_request(RequestContext(head.route, request_id, server.app_name, head.multiplexed_model_id))
            args, kwargs = loads(body)
            result = dumps(await server.user_code.call(method, args, kwargs))
            self._connection.send(RESULT, stream, b"", result, 0, server.admission.taken - 1)
        except asyncio.CancelledError:
            if not self._was_cancelled(stream):
                self._send_error(stream, "salver", RequestCancelledError(request_id))
        except NoSuchMethod as error:
            self._send_error(stream, "salver", error)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and only this request fails
            text = self._send_error(stream, "user", error)
            logger.warning("request %s: %s raised\n%s", request_id, method, text)
        finally:
            self._done(stream)

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

    def _send_error(self, stream: int, kind: str, error: BaseException) -> str:
        text = user_traceback(error)
        report = ErrorBody(kind, text.rpartition("\n")[2], text, _pickled(error))
        self._connection.send(ERROR, stream, b"", _encode(report), 0, self._server.admission.taken - 1)
        return text

    def _done(self, stream: int) -> None:
        self._running.pop(stream, None)
        self._answers.pop(stream, None)
        self._server.finished()


def _offer(caller: Caller) -> None:
    caller.offer_slot()


def _credit(header: bytes) -> int:
    try:
        return _decode_credit(header).size_bytes
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a CREDIT frame's head is malformed: {error}") from None


def _pickled(error: BaseException) -> bytes:
    """Pickle an exception: whole, or its type and text, or nothing; the traceback travels anyway, as text."""
    # The user's own classes run here, and may raise anything.
    with suppress(Exception):
        return dumps(error if pickles_itself(error) else packed(error))
    with suppress(Exception):
        return dumps(PackedException(type(error), (str(error),), {}))
    return b""
