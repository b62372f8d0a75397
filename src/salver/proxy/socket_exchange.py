"""One WebSocket between the proxy and a replica: messages both ways, each under the other side's credit."""

import logging
from typing import TYPE_CHECKING, Protocol

import msgspec

from salver.handle.outgoing import Hints, Outgoing
from salver.proxy.limits import GRANT_SIZE_BYTES
from salver.schema.errors import ReplicaDiedError, SalverError
from salver.schema.outcomes import INTERNAL_ERROR, Outcome, outcome_of
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import (
    ACCEPTED,
    BYTES,
    CHUNK,
    CLOSE,
    CREDIT,
    END,
    MESSAGE_OVERHEAD_BYTES,
    MORE,
    RESPONSE,
    SOCKET,
    SOCKET_WINDOW_SIZE_BYTES,
    TEXT,
    AcceptedHead,
    CloseHead,
    CreditHead,
    HttpHead,
)

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.router import Router

logger = logging.getLogger(LOGGER_NAME)

INTERNAL_ERROR_CODE = 1011

_MESSAGES = frozenset({TEXT, BYTES})

_encode = msgspec.msgpack.Encoder().encode
_decode_accepted = msgspec.msgpack.Decoder(AcceptedHead).decode
_decode_close = msgspec.msgpack.Decoder(CloseHead).decode
_decode_credit = msgspec.msgpack.Decoder(CreditHead).decode


class SocketClient(Protocol):
    """The client's connection, as far as an exchange needs it."""

    def accept(self, head: AcceptedHead) -> None:
        """Open the WebSocket.

        Raises:
            ValueError: The head cannot be written as HTTP.
        """

    def deny(self, header: bytes, body: bytes, *, more: bool) -> bool:
        """Answer the handshake with the application's response, or its beginning; say whether the client keeps up.

        Raises:
            ValueError: The head cannot be written as HTTP.
        """

    def deny_more(self, body: bytes) -> bool:
        """Write more of that response; say whether the client keeps up."""

    def deny_end(self, body: bytes) -> None:
        """End that response."""

    def refuse(self, outcome: Outcome) -> None:
        """Answer the handshake with what the system has to say."""

    def send(self, kind: int, body: bytes) -> bool:
        """Send a message; say whether the client keeps up."""

    def close(self, code: int, reason: str) -> None:
        """Close the WebSocket."""

    def cut(self) -> None:
        """Break the connection."""

    def read_on(self) -> None:
        """The replica takes more."""


class SocketExchange(Outgoing):
    """A WebSocket's handshake and its messages.

    Attributes:
        window: How much the replica takes; messages may be sent while it is above zero.
        accepted: The application has accepted.
        answered: The client was sent something.
    """

    __slots__ = ("_client", "_head", "_over", "_owed", "_router", "accepted", "answered", "window")

    def __init__(self, client: SocketClient, router: "Router", head: HttpHead) -> None:
        super().__init__()
        self.hints = Hints(head.multiplexed_model_id, head.session_id, head.urgency)
        self.accepted = False
        self.answered = False
        self.window = SOCKET_WINDOW_SIZE_BYTES
        self._client = client
        self._router = router
        self._head = head
        self._owed = 0
        self._over = True

    def begin(self) -> None:
        """Ask the application."""
        self._over = False
        self._router.route(self)

    def cancel(self) -> None:
        """Nobody waits for anything any longer: stop the handler, wherever it is."""
        if not self._over:
            self._over = True
            self._router.cancel(self)

    def pass_on(self, kind: int, body: bytes) -> None:
        """Send the application a client's message."""
        if self._over or self.channel is None:
            return
        self.window -= len(body) + MESSAGE_OVERHEAD_BYTES
        self.channel.connection.send(kind, self.stream, b"", body)

    def tell_closed(self, code: int, reason: str) -> None:
        """Tell the application, once, that the client is gone or about to be."""
        if self._over or self.channel is None:
            return
        self._over = True
        self.channel.connection.send(CLOSE, self.stream, _encode(CloseHead(code, reason)))

    def client_keeps_up(self) -> None:
        """The client reads again: let the replica send what was held back."""
        owed, self._owed = self._owed, 0
        if owed and not self._over and self.channel is not None:
            self.channel.connection.send(CREDIT, self.stream, _encode(CreditHead(owed)))

    # Outgoing

    def write(self, channel: "Channel", stream: int, flags: int) -> None:
        """Send the handshake to a replica; part of Outgoing."""
        channel.connection.send(SOCKET, stream, _encode(self._head), b"", flags)

    def on_frame(self, kind: int, flags: int, _load: int, header: bytes, body: bytes) -> None:
        """Pass on what the replica sends; part of Outgoing."""
        if kind in _MESSAGES:
            self._owe(len(body) + MESSAGE_OVERHEAD_BYTES, keeps_up=self._client.send(kind, body))
        elif kind == CREDIT:
            self.window += _decode_credit(header).size_bytes
            self._client.read_on()
        elif kind == CLOSE and self.accepted:
            self._on_close(header)
        elif kind == CHUNK:
            self._owe(len(body), keeps_up=self._client.deny_more(body))
        else:
            self._on_turn(kind, flags, header, body)

    def may_repeat(self) -> bool:
        """A handshake is a GET: it may be repeated until the client has seen an answer; part of Outgoing."""
        return not self.answered

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        error = ReplicaDiedError(replica, self._head.request_id)
        self._fail(f"request {self._head.request_id}: its replica died", outcome_of(error))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._fail(str(error), outcome_of(error))

    def _on_turn(self, kind: int, flags: int, header: bytes, body: bytes) -> None:
        try:
            if kind == ACCEPTED and not self.answered:
                self.accepted = self.answered = True
                self._client.accept(_decode_accepted(header))
            elif kind == RESPONSE and not self.answered:
                self._on_denial(header, body, more=bool(flags & MORE))
            elif kind == END and self.answered:
                self._on_end(body)
            else:
                self._fail(f"request {self._head.request_id} failed", INTERNAL_ERROR)
                self._router.cancel(self)
        except ValueError as error:
            logger.error("request %s: the answer cannot be written as HTTP: %s", self._head.request_id, error)
            self.accepted = self.answered = False
            self._fail("", INTERNAL_ERROR)
            self._router.cancel(self)

    def _on_denial(self, header: bytes, body: bytes, *, more: bool) -> None:
        self.answered = True
        self._owe(len(body), keeps_up=self._client.deny(header, body, more=more))
        if not more:
            self._over = True

    def _on_close(self, header: bytes) -> None:
        self._over = True
        head = _decode_close(header)
        self._client.close(head.code, head.reason)

    def _on_end(self, body: bytes) -> None:
        """The handler has finished; it closed before that, if it ever accepted."""
        self._over = True
        if self.accepted:
            self._client.close(INTERNAL_ERROR_CODE, "")
        else:
            self._client.deny_end(body)

    def _fail(self, reason: str, outcome: Outcome) -> None:
        if self._over:
            # Whatever the replica does now, the client has all that it gets.
            return
        self._over = True
        if self.accepted:
            self._client.close(INTERNAL_ERROR_CODE, reason)
        elif self.answered:
            self._client.cut()
        else:
            self.answered = True
            self._client.refuse(outcome)

    def _owe(self, size_bytes: int, *, keeps_up: bool) -> None:
        self._owed += size_bytes
        if keeps_up and self._owed >= GRANT_SIZE_BYTES:
            self.client_keeps_up()
