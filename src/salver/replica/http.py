"""HTTP on the replica: a request head becomes a starlette Request, a result becomes frames."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import msgspec
from starlette.requests import Request

from salver.lib.tracebacks import user_traceback
from salver.replica.admission import Admission
from salver.replica.encoding import encode_body
from salver.replica.inbox import Inbox
from salver.runtime.ingress import AsgiApp, Receive, Scope
from salver.schema.outcomes import INTERNAL_ERROR, Outcome, outcome_of
from salver.transport.framing import FrameConnection
from salver.transport.wire import (
    CHUNK,
    CREDIT,
    END,
    ERROR,
    MORE,
    RESPONSE,
    CreditHead,
    ErrorBody,
    HttpHead,
    ResponseHead,
    TrailersHead,
)

Message = MutableMapping[str, Any]

WINDOW_SIZE_BYTES = 1 << 20
"""How much of a streamed body may be on its way before the reader asks for more."""

GRANT_SIZE_BYTES = 64 * 1024
"""A caller is told in steps of this size that user code takes a body; far less than it may send unasked."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(HttpHead).decode
_plain_heads: dict[tuple[bytes, int], bytes] = {}
_MAX_CACHED_HEADS = 4096


def decode_head(header: bytes) -> HttpHead:
    """Return the head of an HTTP frame."""
    return _decode_head(header)


def make_request(head: HttpHead, receive: Receive) -> Request:
    """Return the request as user code sees it; the path is whole, prefix included."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.http_version,
        "method": head.method,
        "scheme": head.scheme,
        "path": head.path,
        "raw_path": head.raw_path.encode("latin-1"),
        "query_string": head.query,
        "root_path": head.root_path,
        "headers": head.headers,
        "client": head.client,
        "server": None,
        "extensions": {"http.response.trailers": {}},
    }
    return Request(scope, receive)


class WholeBody:
    """A body that has arrived with its request."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def receive(self) -> Message:
        """Return the body, once; part of ASGI."""
        body, self._body = self._body, None
        if body is None:
            # Whoever asks again wants to know when the client leaves; cancellation tells that.
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}


class ArrivingBody:
    """A body that arrives while user code runs.

    Args:
        connection: Where it comes from, and where credit for more goes.
    """

    __slots__ = ("_connection", "_inbox", "_owed", "_stream")

    def __init__(self, connection: FrameConnection, stream: int, first: bytes) -> None:
        self._connection = connection
        self._stream = stream
        self._inbox = Inbox(self._taken)
        self._owed = 0
        if first:
            self.add(first)

    async def receive(self) -> Message:
        """Return the next piece; part of ASGI."""
        return await self._inbox.receive()

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self._inbox.put({"type": "http.request", "body": data, "more_body": True}, len(data))

    def end(self) -> None:
        """Note that this was all."""
        self._inbox.put({"type": "http.request", "body": b"", "more_body": False}, 0)

    def _taken(self, size_bytes: int) -> None:
        self._owed += size_bytes
        if self._owed >= GRANT_SIZE_BYTES:
            owed, self._owed = self._owed, 0
            self._connection.send(CREDIT, self._stream, _encode(CreditHead(owed)))


class Answer:
    """Writes one HTTP answer as frames.

    Args:
        admission: Says how many other requests the replica works on.

    Attributes:
        started: Some of the answer is on its way.
        ended: All of it is.
    """

    __slots__ = (
        "_admission",
        "_connection",
        "_head",
        "_room",
        "_stream",
        "_trailers",
        "_window",
        "ended",
        "started",
    )

    def __init__(self, connection: FrameConnection, stream: int, admission: Admission[Any]) -> None:
        self.started = False
        self.ended = False
        self._connection = connection
        self._stream = stream
        self._admission = admission
        self._head = b""
        self._window = WINDOW_SIZE_BYTES
        self._room: asyncio.Event | None = None
        self._trailers: list[tuple[bytes, bytes]] | None = None

    def write(self, value: Any) -> None:
        """Answer with a handler's plain result."""
        content_type, body = encode_body(value)
        size = len(body)
        head = _plain_heads.get((content_type, size))
        if head is None:
            head = _plain_head(content_type, size)
        self._connection.send(RESPONSE, self._stream, head, body, 0, self._admission.taken - 1)
        self.started = self.ended = True

    def write_outcome(self, outcome: Outcome) -> None:
        """Answer with an error."""
        headers = [*outcome.headers, (b"content-length", b"%d" % len(outcome.body))]
        head = _encode(ResponseHead(outcome.status, headers))
        self._connection.send(RESPONSE, self._stream, head, outcome.body, 0, self._admission.taken - 1)
        self.started = self.ended = True

    async def run(self, response: AsgiApp, request: Request) -> None:
        """Answer with an ASGI application: a starlette Response, streaming ones included, or a user's own.

        Raises:
            RuntimeError: The response sent nothing.
        """
        await response(request.scope, request.receive, self.send)
        if not self.started:
            raise RuntimeError(f"{type(response).__name__} sent no answer")
        if not self.ended:
            self._end()

    async def send(self, message: Message) -> None:
        """Take an ASGI message."""
        if message["type"] != "http.response.body":
            self._take_headers(message)
        else:
            body = bytes(message.get("body", b""))
            # An answer with trailers ends with them, not with its body.
            if not message.get("more_body", False) and self._trailers is None:
                self._send_last(body)
                return
            if not self.started:
                self._send_first(body, MORE)
            elif body:
                self._connection.send(CHUNK, self._stream, b"", body)
            self._window -= len(body)
            if self._window <= 0:
                await self._wait_for_room()

    def _take_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = _encode(ResponseHead(message["status"], list(message.get("headers", []))))
            self._trailers = [] if message.get("trailers") else None
        elif message["type"] == "http.response.trailers" and self._trailers is not None:
            self._trailers += message.get("headers", [])
            if not message.get("more_trailers", False) and not self.ended:
                self._end()

    def grant(self, size_bytes: int) -> None:
        """The reader takes more of the body."""
        self._window += size_bytes
        if self._window > 0 and self._room is not None:
            self._room.set()

    def break_off(self, error: BaseException) -> None:
        """End an answer that has begun and cannot be finished: the client has read a status already."""
        self.ended = True
        report = ErrorBody("stream", type(error).__name__, "", b"")
        self._connection.send(ERROR, self._stream, b"", _encode(report), 0, self._admission.taken - 1)

    def _end(self) -> None:
        self.ended = True
        header = _encode(TrailersHead(self._trailers)) if self._trailers else b""
        self._connection.send(END, self._stream, header, load=self._admission.taken - 1)

    def _send_first(self, body: bytes, flags: int) -> None:
        self._connection.send(RESPONSE, self._stream, self._head, body, flags, self._admission.taken - 1)
        self.started = True

    def _send_last(self, body: bytes) -> None:
        if not self.started:
            self._send_first(body, 0)
            self.ended = True
            return
        if body:
            self._connection.send(CHUNK, self._stream, b"", body)
        if not self.ended:
            self._end()

    async def _wait_for_room(self) -> None:
        while self._window <= 0:
            self._room = asyncio.Event()
            await self._room.wait()


def failure_outcome(error: BaseException, *, expose: bool) -> Outcome:
    """Return the answer for what user code raised; with `expose`, the traceback is the body of a 500."""
    outcome = outcome_of(error)
    if expose and outcome is INTERNAL_ERROR:
        return INTERNAL_ERROR._replace(body=user_traceback(error).encode())
    return outcome


def _plain_head(content_type: bytes, size: int) -> bytes:
    head = _encode(ResponseHead(200, [(b"content-type", content_type), (b"content-length", b"%d" % size)]))
    if len(_plain_heads) < _MAX_CACHED_HEADS:
        _plain_heads[content_type, size] = head
    return head
