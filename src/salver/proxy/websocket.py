"""A client's WebSocket: takes the connection over from HTTP once a handshake has arrived.

Nothing is accepted before the application accepts. What the client sends is read only as fast as the replica takes it,
and what the replica sends is granted only as fast as the client reads.
"""

import asyncio
from typing import TYPE_CHECKING

from salver.proxy.client_connection import ClientConnection
from salver.proxy.handshake import BAD_EXTENSIONS, answer_to, fault_of, values_of
from salver.proxy.heads import LEFT_OUT_OF_HANDSHAKES, Head, header_lines, outcome_head
from salver.proxy.limits import (
    CLOSE_TIMEOUT_S,
    MAX_OWED_PONGS,
    PING_PERIOD_S,
    PING_TIMEOUT_S,
    SOCKET_SLICE_SIZE_BYTES,
)
from salver.proxy.socket_exchange import INTERNAL_ERROR_CODE, SocketExchange
from salver.proxy.socket_frames import Message, SocketFrames
from salver.schema.outcomes import Outcome
from salver.transport.wire import AcceptedHead, HttpHead

if TYPE_CHECKING:
    from salver.handle.router import Router
    from salver.proxy.site import Site

GOING_AWAY = 1001
POLICY_VIOLATION = 1008

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
_CLOSE = b"connection: close\r\n"
_UPGRADE = b"upgrade: websocket\r\nconnection: upgrade, close\r\n"
_UPGRADE_REQUIRED = 426


class WebSocketConnection(ClientConnection):
    """One client's WebSocket.

    Args:
        site: What it shares with other connections.
        transport: The client's; this becomes its protocol.
        router: Leads to the application.
        head: The handshake.
        timeout_s: How long handshake and WebSocket may take in all; None or less than 0 for as long as they want.
        now: Loop time.
    """

    def __init__(
        self,
        site: "Site",
        transport: asyncio.Transport,
        router: "Router",
        head: HttpHead,
        timeout_s: float | None,
        now: float,
    ) -> None:
        super().__init__()
        self._site = site
        self._transport = transport
        self._head = head
        self._timeout_s = timeout_s
        self._exchange = SocketExchange(self, router, head)
        self._frames: SocketFrames
        self._accepted = False
        self._backlog = b""
        self._reading = True
        self._congested = False
        self._num_pings = 0
        self._began_at = self._now = self._heard_at = now
        self._pinged_at: float | None = None
        self._ending_at: float | None = None
        self._lost = False

    def begin(self) -> None:
        """Ask the application, if the handshake is one."""
        self._transport.set_protocol(self)
        self._site.opened(self)
        offered = values_of(self._head.headers, b"sec-websocket-extensions")
        fault = fault_of(self._head.headers)
        try:
            self._frames = SocketFrames(offered if fault is None else ())
        except ValueError:
            fault, self._frames = BAD_EXTENSIONS, SocketFrames()
        if fault is not None:
            self.refuse(fault)
        else:
            self._exchange.begin()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._heard_at = self._now
        self._pinged_at = None
        if self._ending_at is not None and not self._accepted:
            return
        self._backlog = self._backlog + data if self._backlog else data
        self.read_on()

    def eof_received(self) -> None:
        """Part of asyncio.Protocol."""
        if self._accepted:
            self._frames.feed_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._lost = True
        self._backlog = b""
        if self._accepted:
            self._exchange.tell_closed(self._frames.close_code, self._frames.close_reason)
        else:
            self._exchange.cancel()
        self._frames.release()
        self._site.closed(self)

    def pause_writing(self) -> None:
        """The client reads slowly; part of asyncio.Protocol."""
        self._congested = True
        self._num_pings = self._frames.num_pings

    def resume_writing(self) -> None:
        """The client reads again; part of asyncio.Protocol."""
        self._congested = False
        self._heard_at = self._now
        self._exchange.client_keeps_up()
        self.read_on()

    # SocketClient

    def accept(self, head: AcceptedHead) -> None:
        """Part of SocketClient."""
        chosen = [] if head.subprotocol is None else [(b"sec-websocket-protocol", head.subprotocol.encode("latin-1"))]
        extensions = self._frames.extensions
        if extensions is not None:
            chosen.append((b"sec-websocket-extensions", extensions.encode("latin-1")))
        chosen.append((b"sec-websocket-accept", answer_to(self._head.headers)))
        lines = header_lines(head.headers, LEFT_OUT_OF_HANDSHAKES) + header_lines(chosen)
        if self._lost or self._ending_at is not None:
            return
        self._accepted = True
        self._transport.write(b"%b%b%b\r\n" % (_SWITCHING, lines, self._own_headers()))
        self._heard_at = self._now
        if self._site.draining:
            self.finish()
        self.read_on()

    def deny(self, header: bytes, body: bytes, *, more: bool) -> bool:
        """Part of SocketClient."""
        head = self._site.heads.get(header)
        # Without a length, the answer ends with the connection.
        self._write_answer(head, head.whole if more else head.sized(len(body)), body)
        return self.deny_more(b"") if more else self._end()

    def deny_more(self, body: bytes) -> bool:
        """Part of SocketClient."""
        if body and not self._is_ending and not self._accepted:
            self._transport.write(body)
        return not self._congested

    def deny_end(self, body: bytes) -> None:
        """Part of SocketClient."""
        self.deny_more(body)
        self._end()

    def refuse(self, outcome: Outcome) -> None:
        """Part of SocketClient."""
        head = outcome_head(outcome)
        self._write_answer(head, head.sized(len(outcome.body)), outcome.body)
        self._end()

    def send(self, kind: int, body: bytes) -> bool:
        """Part of SocketClient."""
        if self._is_ending or not self._accepted:
            return True
        self._frames.send(Message(kind, body))
        self._flush()
        return not self._congested

    def close(self, code: int, reason: str) -> None:
        """Part of SocketClient."""
        if self._is_ending or not self._accepted:
            return
        try:
            self._frames.close(code, reason)
        except ValueError:
            self._frames.close(INTERNAL_ERROR_CODE, "")
        self._ending_at = self._now
        self._flush()
        self.read_on()

    def cut(self) -> None:
        """Part of SocketClient."""
        self._ending_at = self._now
        self._transport.abort()

    def read_on(self) -> None:
        """Take what the client has sent, as far as the replica does; part of SocketClient."""
        if self._accepted:
            self._feed()
            self._flush()
            if not self._frames.is_open:
                self._exchange.tell_closed(self._frames.close_code, self._frames.close_reason)
                if self._ending_at is None:
                    self._ending_at = self._now
        if self._accepted:
            wanted = self._is_ending or (not self._backlog and self._takes_more)
        else:
            # A little may come early; reading on tells when the client leaves.
            wanted = len(self._backlog) < SOCKET_SLICE_SIZE_BYTES
        if wanted is not self._reading and not self._lost and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # The proxy's sweep and drain

    def look(self, now: float) -> None:
        """End what takes too long, and see whether the client lives."""
        self._now = now
        timeout_s = self._timeout_s
        if self._ending_at is not None:
            if now - self._ending_at > CLOSE_TIMEOUT_S:
                self._transport.abort()
        elif timeout_s is not None and 0 < timeout_s < now - self._began_at:
            self._time_out(timeout_s)
        elif self._accepted:
            self._look_for_life(now)

    def finish(self) -> None:
        """The proxy drains: ask client and application to end; a handshake that waits is closed when it is accepted."""
        if self._accepted:
            self.close(GOING_AWAY, "")

    def leave(self, _now: float) -> None:
        """Part of Guest; not for one that speaks."""
        self.finish()

    def turn_away(self, outcome: Outcome) -> None:
        """Part of Guest."""
        if self._accepted:
            self.finish()
        else:
            self._exchange.cancel()
            self.refuse(outcome)

    @property
    def _is_ending(self) -> bool:
        return self._lost or self._ending_at is not None

    def _feed(self) -> None:
        """Turn bytes into messages until the replica takes no more; after a close, nobody wants messages."""
        data = self._backlog
        frames, exchange = self._frames, self._exchange
        step = SOCKET_SLICE_SIZE_BYTES if frames.extensions else len(data)
        position = 0
        while position < len(data) and (self._takes_more or not frames.is_open):
            for message in frames.feed(data[position : position + step]):
                exchange.pass_on(message.kind, message.body)
            position += step
        self._backlog = data[position:]

    @property
    def _takes_more(self) -> bool:
        if self._congested and self._frames.num_pings - self._num_pings > MAX_OWED_PONGS:
            return False
        return self._exchange.window > 0

    def _look_for_life(self, now: float) -> None:
        if not self._reading:
            # Its answer would not be read.
            self._heard_at = now
        elif self._pinged_at is not None:
            if now - self._pinged_at > PING_TIMEOUT_S:
                self.close(INTERNAL_ERROR_CODE, "keepalive ping timeout")
        elif now - self._heard_at > PING_PERIOD_S:
            self._pinged_at = now
            self._frames.ping()
            self._flush()

    def _time_out(self, timeout_s: float) -> None:
        text = f"Request {self._head.request_id} timed out after {timeout_s:.1f}s."
        self._exchange.cancel()
        if self._accepted:
            self.close(POLICY_VIOLATION, text)
        elif self._exchange.answered:
            self.cut()
        else:
            self.refuse(Outcome(408, text.encode()))

    def _own_headers(self) -> bytes:
        return b"x-request-id: %b\r\n%b" % (self._head.request_id.encode("latin-1", "replace"), self._site.date)

    def _write_answer(self, head: Head, text: bytes, body: bytes) -> None:
        if self._is_ending:
            return
        connection = _UPGRADE if head.status == _UPGRADE_REQUIRED else _CLOSE
        self._transport.write(b"%b%b%b\r\n%b" % (text, self._own_headers(), connection, b"" if head.bodyless else body))

    def _flush(self) -> None:
        for data in self._frames.take():
            if self._lost:
                return
            if data:
                self._transport.write(data)
            else:
                self._end()

    def _end(self) -> bool:
        """Close, once the client has read what it was sent.

        What a client goes on sending must be read, or the system would break the connection and the client never learn
        why; one that has closed sends nothing more.
        """
        if self._ending_at is None:
            self._ending_at = self._now
        if self._lost or self._transport.is_closing():
            return True
        if not self._accepted:
            self._backlog = b""
            self.read_on()
        if (self._accepted and self._frames.is_over) or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
        return True
