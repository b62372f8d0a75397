"""One stream of an HTTP/2 connection: a request and its answer."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import h2.errors
import h2.exceptions

from salver.proxy.body_limit import too_long_for
from salver.proxy.deadlines import Abandoned, timed_out
from salver.proxy.dispatch import begin, exchange_for
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head, outcome_head
from salver.proxy.http2_headers import read_headers
from salver.proxy.limits import MIN_UPLOAD_RATE_BYTES_PER_S, UPLOAD_WINDOW_SIZE_BYTES
from salver.proxy.parsing import TOO_SLOW
from salver.proxy.request import Request
from salver.schema.outcomes import Outcome

if TYPE_CHECKING:
    from salver.proxy.http2 import Http2Connection

_PENDING_SIZE_BYTES = 256 * 1024
"""A replica is told to wait when so much of its answer waits for the client."""


class Http2Stream:
    """The `Client` of one exchange.

    Args:
        connection: Carries it.
        stream_id: Its number there.
    """

    def __init__(self, connection: "Http2Connection", stream_id: int) -> None:
        self._connection = connection
        self._h2 = connection.h2
        self._id = stream_id
        self._request = Request()
        self._exchange: Exchange | None = None
        self._began_at = connection.time()
        self._ended = False
        self._over = False
        self._unacknowledged = 0
        self._pending: deque[bytes] = deque()
        self._pending_size = 0
        self._last = False
        self._trailers: list[tuple[bytes, bytes]] = []

    # What comes

    def on_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the request's headers."""
        request = self._request
        request.version = "2"
        request.refused = read_headers(request, headers)
        if request.refused is not None:
            self._begin()
        elif request.expects_continue:
            self._h2.send_headers(self._id, [(b":status", b"100")])

    def on_data(self, data: bytes, flow_controlled_size: int) -> None:
        """Take more of its body."""
        request = self._request
        request.body_size += len(data)
        self._unacknowledged += flow_controlled_size
        limit = request.max_body_size_bytes
        if limit is not None and request.body_size > limit and not self._over:
            self._refuse(too_long_for(limit))
        elif self._exchange is not None:
            self._exchange.add_body(data)
        elif isinstance(request.body, bytearray):
            request.body += data
        else:
            request.body = bytearray(data)
        self.body_taken()

    def on_end(self) -> None:
        """The request is complete."""
        self._ended = True
        if self._exchange is None:
            self._begin()
        else:
            self._exchange.end_body()

    def look_at_arrival(self) -> None:
        """Do not wait for the rest of a long body."""
        request = self._request
        if self._exchange is None and not self._ended and request.is_long:
            request.begun = True
            self._begin()
            request.body = b""

    def leave(self) -> None:
        """The client is gone, or wants no answer."""
        self._over = True
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.outlives_client and self._ended and not exchange.abandoned:
            Abandoned(self._connection.site, exchange)
        else:
            exchange.cancel()

    def look(self, now: float) -> None:
        """End it when it takes too long."""
        if not self._ended and not self._is_full:
            timeout_s = self._connection.site.options.request_arrival_timeout_s
            allowed_s = timeout_s + self._request.body_size / MIN_UPLOAD_RATE_BYTES_PER_S
            if now - self._began_at > allowed_s:
                self._refuse(TOO_SLOW)

    def on_deadline(self, _now: float) -> None:
        """The time of its request is over; part of Mortal."""
        exchange = self._exchange
        if exchange is not None and exchange.timeout_s is not None and not self._over:
            self._refuse(timed_out(exchange.request_id, exchange.timeout_s))

    # Client

    def now(self) -> float:
        """Part of Client."""
        return self._connection.time()

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._connection.site.heads.get(encoded)

    def body_taken(self) -> None:
        """Let the client send more, unless the replica has not taken what there is; part of Client."""
        if self._unacknowledged and not self._is_full:
            size, self._unacknowledged = self._unacknowledged, 0
            self._connection.acknowledge(size, self._id)

    def write_whole(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        size = head.length if exchange.is_head and head.length is not None else len(body)
        fields = [] if head.bodyless else [(b"content-length", b"%d" % size)]
        if exchange.is_head or head.bodyless:
            body = b""
        self._write_head(exchange, head, fields, ends=not body)
        if body:
            self._add(body)
        self._finish()

    def write_start(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        exchange.is_head = exchange.is_head or head.bodyless
        exchange.missing = head.length
        fields = [] if head.length is None else [(b"content-length", b"%d" % head.length)]
        self._write_head(exchange, head, fields, ends=False)
        self.write_more(exchange, body)

    def write_more(self, exchange: Exchange, body: bytes) -> bool:
        """Part of Client."""
        if self._over or not body or exchange.is_head:
            return True
        if exchange.missing is not None:
            exchange.missing -= len(body)
            if exchange.missing < 0:
                self.cut()
                return True
        self._add(body)
        return self._keeps_up

    def write_end(self, exchange: Exchange, body: bytes, trailers: bytes) -> None:
        """Part of Client."""
        self.write_more(exchange, body)
        if exchange.missing and not exchange.is_head:
            self.cut()
            return
        lines = (line.partition(b": ") for line in trailers.split(b"\r\n") if line)
        self._trailers = [(name.lower(), value) for name, _, value in lines]
        self._finish()

    def cut(self) -> None:
        """Part of Client."""
        if not self._over:
            self._over = True
            if self._exchange is not None:
                self._exchange.cancel()
            self._reset(h2.errors.ErrorCodes.INTERNAL_ERROR)
            self._drop_unanswered()
            self._connection.forget(self._id)

    def pump(self) -> None:
        """Send as much of the answer as the client has room for."""
        if self._over or self._connection.congested:
            return
        try:
            self._send_pending()
        except h2.exceptions.ProtocolError:
            self.cut()
            return
        self._connection.flush()
        if self._last and not self._pending and not self._over:
            self._close()
        elif self._exchange is not None and self._keeps_up and not self._last:
            self._exchange.client_keeps_up()

    @property
    def _keeps_up(self) -> bool:
        return self._pending_size < _PENDING_SIZE_BYTES and not self._connection.congested

    @property
    def _is_full(self) -> bool:
        upload = self._exchange.upload if self._exchange is not None else None
        if upload is not None:
            return upload.is_full
        return self._exchange is None and self._request.body_size >= UPLOAD_WINDOW_SIZE_BYTES

    def _begin(self) -> None:
        connection = self._connection
        exchange, outcome = exchange_for(self, connection.site, connection.caller, self._request)
        self._exchange = exchange
        if exchange.deadline is not None:
            connection.site.deadlines.watch(self, exchange.deadline)
        begin(self, exchange, outcome)

    def _refuse(self, outcome: Outcome) -> None:
        if self._exchange is None:
            self._request.refused = outcome
            self._begin()
        elif self._exchange.started:
            self.cut()
        else:
            self._exchange.cancel()
            self._exchange.started = True
            self.write_whole(self._exchange, outcome_head(outcome), outcome.body)

    def _write_head(self, exchange: Exchange, head: Head, fields: list[tuple[bytes, bytes]], *, ends: bool) -> None:
        if self._over:
            return
        name, _, date = self._connection.site.date.strip().partition(b": ")
        own = [(b"x-request-id", exchange.request_id), *([(name, date)] if name else [])]
        try:
            self._h2.send_headers(
                self._id, [(b":status", b"%d" % head.status), *head.fields, *fields, *own], end_stream=ends
            )
        except h2.exceptions.ProtocolError:
            self.cut()
            return
        self._connection.flush()
        if ends:
            self._close(end_is_sent=True)

    def _add(self, body: bytes) -> None:
        self._pending.append(body)
        self._pending_size += len(body)
        if not self._connection.congested and not self._over:
            try:
                self._send_pending()
            except h2.exceptions.ProtocolError:
                self.cut()
                return
            self._connection.flush()

    def _send_pending(self) -> None:
        pending = self._pending
        while pending:
            room = min(self._h2.local_flow_control_window(self._id), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            body = pending[0]
            if len(body) <= room:
                pending.popleft()
            else:
                pending[0] = body[room:]
                body = body[:room]
            self._pending_size -= len(body)
            self._h2.send_data(self._id, body)

    def _finish(self) -> None:
        """All of the answer is known; close when it is sent."""
        if self._over:
            return
        self._last = True
        if not self._pending:
            self._close()

    def _close(self, *, end_is_sent: bool = False) -> None:
        """All of the answer is sent."""
        self._over = True
        try:
            if self._trailers:
                self._h2.send_headers(self._id, self._trailers, end_stream=True)
            elif not end_is_sent:
                self._h2.end_stream(self._id)
        except h2.exceptions.ProtocolError:
            self._ended = True  # The client has reset it meanwhile.
        if not self._ended:
            # The client need not send the rest of its body.
            self._reset(h2.errors.ErrorCodes.NO_ERROR)
            self._drop_unanswered()
        self._connection.flush()
        self._connection.forget(self._id)

    def _drop_unanswered(self) -> None:
        if self._unacknowledged:
            self._connection.acknowledge(self._unacknowledged, self._id)

    def _reset(self, code: h2.errors.ErrorCodes) -> None:
        try:
            self._h2.reset_stream(self._id, code)
        except h2.exceptions.ProtocolError:
            return
        self._connection.flush()
