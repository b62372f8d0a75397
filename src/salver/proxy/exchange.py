"""One HTTP request on its way through the proxy: from parsed head to written answer."""

import logging
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from salver.handle.outgoing import Description, HttpRequest, Outgoing
from salver.proxy.heads import Head, outcome_head, trailer_lines
from salver.proxy.limits import GRANT_SIZE_BYTES
from salver.proxy.request import Request
from salver.proxy.upload import Upload
from salver.schema.errors import ReplicaDiedError, SalverError
from salver.schema.outcomes import INTERNAL_ERROR, Outcome, outcome_of
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import CHUNK, CREDIT, END, HTTP, MORE, RESPONSE, CreditHead, HttpHead

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.router import Router

logger = logging.getLogger(LOGGER_NAME)

_encode = msgspec.msgpack.Encoder().encode
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Client(Protocol):
    """The client's connection, as far as an exchange needs it."""

    def write_whole(self, exchange: "Exchange", head: Head, body: bytes) -> None:
        """Write an answer in one piece; the exchange is over."""

    def write_start(self, exchange: "Exchange", head: Head, body: bytes) -> None:
        """Write the beginning of an answer."""

    def write_more(self, exchange: "Exchange", body: bytes) -> bool:
        """Write more of an answer; say whether the client keeps up."""

    def write_end(self, exchange: "Exchange", body: bytes, trailers: bytes) -> None:
        """Write the end of an answer, with its trailers as lines; the exchange is over."""

    def body_taken(self) -> None:
        """The replica takes more of the request's body."""

    def cut(self) -> None:
        """Break the connection: the only honest end of an answer that has begun and cannot be finished."""

    def read_head(self, encoded: bytes) -> Head:
        """Decode a replica's head."""

    def now(self) -> float:
        """Return the time that deadlines are measured by."""


class Exchange(Outgoing):
    """A request and its answer.

    Attributes:
        request_id: For the answer's header.
        keep_alive: The connection may serve another request after this one.
        timeout_s: How long the client waits, or None.
        deadline: Loop time until which it waits, or None.
        outlives_client: It goes on when the client leaves.
        is_head: The answer has no body, whatever the replica sends.
        is_old: The client speaks HTTP/1.0.
        started: The client was sent something.
        chunked: The answer's body is sent in chunks.
        upload: The body, where it is sent on while it arrives.
        missing: Bytes of the body that its announced length still asks for, or None where none was announced.
    """

    __slots__ = (
        "_body",
        "_client",
        "_head",
        "_owed",
        "chunked",
        "deadline",
        "is_head",
        "is_old",
        "keep_alive",
        "missing",
        "outlives_client",
        "request_id",
        "router",
        "started",
        "timeout_s",
        "upload",
    )

    def __init__(
        self, client: Client, router: "Router | None", head: HttpHead, request: Request, timeout_s: float | None
    ) -> None:
        self.channel = None
        self.stream = 0
        self.attempts = 0
        self.abandoned = False
        self.hints = request.hints
        self.router = router
        self.request_id = request.request_id
        self.is_head = head.method == "HEAD"
        self.is_old = head.http_version != "1.1"
        self.keep_alive = request.keep_alive
        self.timeout_s = timeout_s
        self.deadline = None if timeout_s is None else client.now() + timeout_s
        self.outlives_client = request.outlives_client
        self.started = False
        self.chunked = False
        self.missing: int | None = None
        self._client = client
        self._head = head
        self._body = bytes(request.body)
        self.upload = Upload(self._body) if request.begun else None
        self._owed = 0

    def cancel(self) -> None:
        """Nobody waits for the answer any longer."""
        if self.router is not None:
            self.router.cancel(self)

    @property
    def is_arriving(self) -> bool:
        """Say whether there is more of the request to come."""
        return self.upload is not None and not self.upload.complete

    def add_body(self, data: bytes) -> None:
        """Send more of the request's body."""
        if self.upload is not None:
            self.upload.add(data, self.channel, self.stream)

    def end_body(self) -> None:
        """The request's body is complete."""
        if self.upload is not None:
            self.upload.end(self.channel, self.stream)

    def hand_over(self, client: Client) -> None:
        """Let another read the rest of the answer."""
        self._client = client
        self.client_keeps_up()

    def client_keeps_up(self) -> None:
        """The client reads again: let the replica send what was held back."""
        if self._owed and self.channel is not None and not self.channel.closed:
            self._grant()

    # Outgoing

    def write(self, channel: "Channel", stream: int, flags: int) -> None:
        """Send the request to a replica; part of Outgoing."""
        head, body, upload = self._head, self._body, self.upload
        if self.deadline is not None:
            head = msgspec.structs.replace(head, timeout_s=max(0.0, self.deadline - self._client.now()))
        if upload is not None:
            body = upload.begin(channel, stream)
            flags |= 0 if upload.complete else MORE
        channel.connection.send(HTTP, stream, _encode(head), body, flags)

    def on_frame(self, kind: int, flags: int, _load: int, header: bytes, body: bytes) -> None:
        """Pass a piece of the answer on; part of Outgoing."""
        if kind == RESPONSE:
            self._on_response(flags, header, body)
        elif kind == CHUNK:
            self._owed += len(body)
            if self._client.write_more(self, body) and self._owed >= GRANT_SIZE_BYTES:
                self._grant()
        elif kind == END:
            self._on_end(header, body)
        elif kind == CREDIT:
            self._on_credit(header)
        elif self.started:
            self._client.cut()
        else:
            self._answer(INTERNAL_ERROR)

    def describe(self) -> Description:
        """Part of Outgoing."""
        return Description(self._head.request_id, "", self._head.route, is_http_request=True)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part of Outgoing."""
        head = self._head
        return (HttpRequest(head.method, head.path, head.query, tuple(head.headers), self._body),), {}

    def may_repeat(self) -> bool:
        """Only what has no effect when done twice, and only before the client has seen anything; part of Outgoing."""
        if self.started or self._head.method not in _IDEMPOTENT:
            return False
        return self.upload is None or self.upload.can_be_repeated

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        if self.started:
            self._client.cut()
        else:
            self._answer(outcome_of(ReplicaDiedError(replica, self._head.request_id, self.may_repeat())))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._answer(outcome_of(error))

    def _on_end(self, header: bytes, body: bytes) -> None:
        try:
            trailers = trailer_lines(header) if header else b""
        except ValueError as error:
            logger.error("request %s: the trailers cannot be written as HTTP: %s", self._head.request_id, error)
            self._client.cut()
        else:
            self._client.write_end(self, body, trailers)

    def _on_credit(self, header: bytes) -> None:
        if self.upload is not None:
            self.upload.was_taken()
            self.upload.grant(header)
            self._client.body_taken()

    def _on_response(self, flags: int, header: bytes, body: bytes) -> None:
        try:
            head = self._client.read_head(header)
        except ValueError as error:
            logger.error("request %s: the answer cannot be written as HTTP: %s", self._head.request_id, error)
            self.cancel()
            self._answer(INTERNAL_ERROR)
            return
        self.started = True
        if self.upload is not None:
            self.upload.was_taken()
        if not flags & MORE:
            self._client.write_whole(self, head, body)
        else:
            self._owed = len(body)
            self._client.write_start(self, head, body)

    def _grant(self) -> None:
        """Let the replica send as much again as the client has taken."""
        owed, self._owed = self._owed, 0
        if self.channel is not None:
            self.channel.connection.send(CREDIT, self.stream, _encode(CreditHead(owed)))

    def _answer(self, outcome: Outcome) -> None:
        self.started = True
        self._client.write_whole(self, outcome_head(outcome), outcome.body)
