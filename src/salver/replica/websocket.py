"""WebSockets on the replica: an ASGI application's messages become frames, and the client's frames its messages."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.websockets import WebSocketDisconnect

from salver.lib.tracebacks import user_traceback
from salver.replica.http import Answer, failure_outcome
from salver.replica.inbox import Inbox
from salver.schema.errors import ProtocolError
from salver.schema.outcomes import Outcome
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import (
    ACCEPTED,
    BYTES,
    CLOSE,
    CREDIT,
    END,
    MESSAGE_OVERHEAD_BYTES,
    SOCKET_WINDOW_SIZE_BYTES,
    TEXT,
    AcceptedHead,
    CloseHead,
    CreditHead,
    HttpHead,
)

if TYPE_CHECKING:
    from salver.replica.admission import Admission
    from salver.runtime.ingress import AsgiApp
    from salver.transport.framing import FrameConnection

Message = MutableMapping[str, Any]

logger = logging.getLogger(LOGGER_NAME)

NO_APPLICATION = Outcome(500, b"Internal Server Error: WebSockets need an ASGI application, see @serve.ingress.")
FORBIDDEN = Outcome(403, b"Forbidden")

NORMAL = 1000
GOING_AWAY = 1001
ABNORMAL = 1006
INTERNAL_ERROR = 1011

_GRANT_SIZE_BYTES = SOCKET_WINDOW_SIZE_BYTES // 8
_DENIAL_PREFIX = len("websocket.")
_SCHEMES = {"http": "ws", "https": "wss"}
# RFC 6455, section 7.4, and the registry that it set up; the rest below 3000 is reserved, or never sent.
_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_OWN_CODES = range(3000, 5000)

_encode = msgspec.msgpack.Encoder().encode
_decode_close = msgspec.msgpack.Decoder(CloseHead).decode


class ClientGone(OSError):
    """Nobody receives what is sent: the WebSocket is closed."""


class _State(Enum):
    """What has become of a WebSocket; the value says it in words."""

    HANDSHAKE = "before it was accepted"
    DENYING = "while the handshake is denied"
    OPEN = "after it was accepted"
    CLOSED = "after it was closed"
    GONE = "after the client has left"


class WebSocket:
    """One WebSocket.

    Args:
        admission: Says how many other requests the replica works on.
    """

    __slots__ = (
        "_accepted",
        "_admission",
        "_answer",
        "_connection",
        "_inbox",
        "_is_over",
        "_owed",
        "_room",
        "_state",
        "_stream",
        "_window",
    )

    def __init__(self, connection: "FrameConnection", stream: int, admission: "Admission[Any]") -> None:
        self._connection = connection
        self._stream = stream
        self._admission = admission
        self._answer = Answer(connection, stream, admission)
        self._inbox = Inbox(self._taken)
        self._inbox.put({"type": "websocket.connect"}, 0)
        self._state = _State.HANDSHAKE
        self._accepted = False
        self._is_over = False
        self._owed = 0
        self._window = SOCKET_WINDOW_SIZE_BYTES
        self._room: asyncio.Event | None = None

    @property
    def ended(self) -> bool:
        """Say whether the caller has heard the last; what still runs then is not its to cancel."""
        return self._is_over or self._answer.ended

    async def run(self, app: "AsgiApp", head: HttpHead) -> None:
        """Let an application answer.

        Raises:
            RuntimeError: It neither accepted nor denied.
        """
        await app(_scope(head), self._inbox.receive, self.send)
        if self._state is _State.OPEN:
            self._say_close(NORMAL, "")
        elif self._state is _State.HANDSHAKE or not (self._accepted or self._answer.ended):
            raise RuntimeError("the application returned and has neither accepted nor denied the WebSocket")
        self._end()

    def refuse(self, outcome: Outcome) -> None:
        """Deny the handshake."""
        self._state = _State.CLOSED
        self._answer.write_outcome(outcome)

    def fail(self, error: BaseException, request_id: str, *, expose: bool) -> None:
        """End after what the application raised: with an answer, or a close code where it had accepted."""
        if self._answer.ended:
            logger.error("request %s was answered, then raised:\n%s", request_id, user_traceback(error))
            return
        if self._accepted:
            if self._state is not _State.GONE or not isinstance(error, ClientGone | WebSocketDisconnect):
                logger.error("request %s failed:\n%s", request_id, user_traceback(error))
            if self._state is _State.OPEN:
                self._say_close(INTERNAL_ERROR, f"request {request_id} failed")
            self._end()
            return
        outcome = failure_outcome(error, expose=expose)
        if outcome.status >= 500:  # noqa: PLR2004
            logger.error("request %s failed with %d:\n%s", request_id, outcome.status, user_traceback(error))
        if self._answer.started:
            self._answer.break_off(error)
        else:
            self._answer.write_outcome(outcome)

    # What the caller sends

    def on_frame(self, kind: int, header: bytes, body: bytes) -> None:
        """Take a message or a close of the client."""
        if kind == CLOSE:
            head = _decode_close(header)
            self.leave(head.code, head.reason)
            return
        message: Message = {"type": "websocket.receive"}
        if kind == TEXT:
            message["text"] = _text(body)
        else:
            message["bytes"] = body
        self._inbox.put(message, len(body) + MESSAGE_OVERHEAD_BYTES)

    def grant(self, size_bytes: int) -> None:
        """The client takes more."""
        self._answer.grant(size_bytes)
        self._window += size_bytes
        if self._window > 0:
            self._wake()

    def leave(self, code: int, reason: str) -> None:
        """The client is gone: the application hears of it when it receives, or sends."""
        if self._state is _State.OPEN:
            self._state = _State.GONE
            self._disconnect(code, reason)

    def go_away(self) -> None:
        """The replica drains: the client goes elsewhere, and the application hears of it."""
        if self._state is _State.OPEN:
            self._say_close(GOING_AWAY, "")
            self._state = _State.GONE

    @property
    def accepted(self) -> bool:
        """Say whether the handler runs on when the client goes, and is told."""
        return self._accepted

    # What the application sends

    async def send(self, message: Message) -> None:
        """Take an ASGI message.

        Raises:
            RuntimeError: It is not the time for this message.
            ValueError: The message holds nothing, or a code that no WebSocket may be closed with.
            ClientGone: Nobody receives it.
        """
        kind = message["type"]
        act = _ACTS.get((self._state, kind))
        if act is None:
            raise RuntimeError(f"the application sent {kind!r} {self._state.value}")
        await act(self, message)

    async def _accept(self, message: Message) -> None:
        head = AcceptedHead(message.get("subprotocol"), [(bytes(n), bytes(v)) for n, v in message.get("headers") or ()])
        self._connection.send(ACCEPTED, self._stream, _encode(head))
        self._state = _State.OPEN
        self._accepted = True
        if self._admission.closed:
            self.go_away()

    async def _deny(self, message: Message) -> None:
        self.refuse(FORBIDDEN)
        self._disconnect(ABNORMAL, "")

    async def _respond(self, message: Message) -> None:
        self._state = _State.DENYING
        await self._answer.send({**message, "type": message["type"][_DENIAL_PREFIX:]})
        if self._answer.ended:
            self._state = _State.CLOSED
            self._disconnect(ABNORMAL, "")

    async def _send(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        if text is not None:
            kind, body = TEXT, text.encode()
        elif data is not None:
            kind, body = BYTES, bytes(data)
        else:
            raise ValueError("the application sent a message with neither text nor bytes")
        while self._window <= 0 and self._state is _State.OPEN:
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()
        if self._state is not _State.OPEN:
            await self.send(message)
            return
        self._window -= len(body) + MESSAGE_OVERHEAD_BYTES
        self._connection.send(kind, self._stream, b"", body)

    async def _close(self, message: Message) -> None:
        code = message.get("code", NORMAL)
        if code not in _CODES and code not in _OWN_CODES:
            raise ValueError(f"{code} is no code that a WebSocket may be closed with")
        self._say_close(code, message.get("reason") or "")

    async def _nobody_hears(self, message: Message) -> None:
        raise ClientGone("the WebSocket is closed")

    async def _do_nothing(self, message: Message) -> None:
        """Closing what the client has closed already is no mistake."""

    def _say_close(self, code: int, reason: str) -> None:
        self._connection.send(CLOSE, self._stream, _encode(CloseHead(code, reason)))
        self._state = _State.CLOSED
        self._disconnect(code, reason)

    def _disconnect(self, code: int, reason: str) -> None:
        self._inbox.end({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._wake()

    def _end(self) -> None:
        if self._accepted:
            self._is_over = True
            self._connection.send(END, self._stream, load=self._admission.taken - 1)

    def _taken(self, size_bytes: int) -> None:
        """The application has taken so much: grant it anew, but not for each small message."""
        self._owed += size_bytes
        if self._owed >= _GRANT_SIZE_BYTES and self._state is _State.OPEN:
            owed, self._owed = self._owed, 0
            self._connection.send(CREDIT, self._stream, _encode(CreditHead(owed)))

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()


_ACTS: dict[tuple[_State, str], Callable[[WebSocket, Message], Awaitable[None]]] = {
    (_State.HANDSHAKE, "websocket.accept"): WebSocket._accept,
    (_State.HANDSHAKE, "websocket.close"): WebSocket._deny,
    (_State.HANDSHAKE, "websocket.http.response.start"): WebSocket._respond,
    (_State.DENYING, "websocket.http.response.body"): WebSocket._respond,
    (_State.OPEN, "websocket.send"): WebSocket._send,
    (_State.OPEN, "websocket.close"): WebSocket._close,
    (_State.GONE, "websocket.send"): WebSocket._nobody_hears,
    (_State.GONE, "websocket.close"): WebSocket._do_nothing,
}


def _scope(head: HttpHead) -> Message:
    offered = [value for name, value in head.headers if name == b"sec-websocket-protocol"]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.http_version,
        "scheme": _SCHEMES[head.scheme],
        "path": head.path,
        "raw_path": head.raw_path.encode("latin-1"),
        "query_string": head.query,
        "root_path": head.root_path,
        "headers": head.headers,
        "client": head.client,
        "server": None,
        "subprotocols": [each.strip().decode("latin-1") for value in offered for each in value.split(b",")],
        "extensions": {"websocket.http.response": {}},
    }


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a TEXT frame's body is no UTF-8: {error}") from None
