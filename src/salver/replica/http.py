"""HTTP on the replica: a request head becomes a starlette Request, a result becomes frames."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import msgspec
from starlette.requests import Request

from salver.lib.tracebacks import user_traceback
from salver.replica.admission import Admission
from salver.replica.encoding import encode_body
from salver.runtime.ingress import AsgiApp
from salver.schema.outcomes import INTERNAL_ERROR, Outcome, outcome_of
from salver.transport.framing import FrameConnection
from salver.transport.wire import CHUNK, END, ERROR, MORE, RESPONSE, ErrorBody, HttpHead, ResponseHead

Message = MutableMapping[str, Any]

WINDOW_SIZE_BYTES = 1 << 20
"""How much of a streamed body may be on its way before the reader asks for more."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(HttpHead).decode
_plain_heads: dict[tuple[bytes, int], bytes] = {}
_MAX_CACHED_HEADS = 4096


def decode_head(header: bytes) -> HttpHead:
    """Return the head of an HTTP frame."""
    return _decode_head(header)


def make_request(head: HttpHead, body: bytes) -> Request:
    """Return the request as user code sees it; the path is whole, prefix included."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.http_version,
        "method": head.method,
        "scheme": "http",
        "path": head.path,
        "raw_path": head.raw_path.encode("latin-1"),
        "query_string": head.query,
        "root_path": head.root_path,
        "headers": head.headers,
        "client": head.client,
        "server": None,
        "extensions": {},
    }
    return Request(scope, _Body(body).receive)


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            # Whoever asks again wants to know when the client leaves; cancellation tells that.
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}


class Answer:
    """Writes one HTTP answer as frames.

    Args:
        admission: Says how many other requests the replica works on.

    Attributes:
        started: Some of the answer is on its way.
        ended: All of it is.
    """

    __slots__ = ("_admission", "_connection", "_head", "_room", "_stream", "_window", "ended", "started")

    def __init__(self, connection: FrameConnection, stream: int, admission: Admission[Any]) -> None:
        self.started = False
        self.ended = False
        self._connection = connection
        self._stream = stream
        self._admission = admission
        self._head = b""
        self._window = WINDOW_SIZE_BYTES
        self._room: asyncio.Event | None = None

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
        if message["type"] == "http.response.start":
            self._head = _encode(ResponseHead(message["status"], list(message.get("headers", []))))
        elif message["type"] == "http.response.body":
            await self._send_body(bytes(message.get("body", b"")), more=message.get("more_body", False))

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
        self._connection.send(END, self._stream, load=self._admission.taken - 1)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if not self.started:
            load = self._admission.taken - 1
            self._connection.send(RESPONSE, self._stream, self._head, body, MORE if more else 0, load)
            self.started = True
            self.ended = not more
        elif body:
            self._connection.send(CHUNK, self._stream, body=body)
        if not more:
            if not self.ended:
                self._end()
            return
        self._window -= len(body)
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
