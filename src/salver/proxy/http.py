"""HTTP/1.1 for one client: bytes in, exchanges to the router, answers out, in the order they were asked for."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from salver.lib.network import peer_has_closed
from salver.proxy.answering import AnsweringConnection
from salver.proxy.arrival import Arrival
from salver.proxy.body_limit import too_long_for
from salver.proxy.deadlines import Abandoned, timed_out
from salver.proxy.dispatch import Caller, begin, exchange_for, look_up, refusal_of, timeout_of
from salver.proxy.exchange import Exchange
from salver.proxy.heads import outcome_head
from salver.proxy.limits import LINGER_S, MAX_PIPELINED, QUIET_S, UPLOAD_WINDOW_SIZE_BYTES
from salver.proxy.parsing import TOO_SLOW, RequestParser
from salver.proxy.request import Request
from salver.proxy.site import Site
from salver.proxy.upgrades import PREFACE, speak_http2, websocket
from salver.schema.outcomes import Outcome
from salver.telemetry.logs import LOGGER_NAME

if TYPE_CHECKING:
    from salver.proxy.websocket import WebSocketConnection

logger = logging.getLogger(LOGGER_NAME)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(AnsweringConnection):
    """One client's connection.

    Args:
        site: What it shares with others.
        loop: Tells the time, and calls back.

    Attributes:
        resting: The client is silent, and the site is told when it no longer is.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(site)
        self._loop = loop
        self._parser = RequestParser(self)
        self._caller: Caller
        self._pipelined: deque[Request] = deque()
        self._reading = True
        self._idle_since = loop.time()
        self._arrival = Arrival()
        self._ended_at: float | None = None
        self._has_asked = False
        self._rest = b""
        self._socket: WebSocketConnection | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._caller = Caller((peer[0], peer[1]) if isinstance(peer, tuple) else None, self._site.scheme)
        self._site.opened(self)
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() == "h2":
            self._step_aside()
            speak_http2(self._site, self._loop, self._transport, b"")

    def connection_lost(self, _exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._lost = True
        self._pipelined.clear()
        if self._current is not None and self._current.outlives_client and not self._current.is_arriving:
            Abandoned(self._site, self._current)
            self._current = None
        self._drop_current()
        self._site.deadlines.forget(self)
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self.resting:
            self._site.woke(self)
        parser = self._parser
        try:
            parser.feed(data)
        except Exception:
            logger.exception("a request could not be handled")
            self.cut()
        if parser.arriving:
            self._more_to_come(parser.request)

    def pause_writing(self) -> None:
        """The client reads slowly; part of asyncio.Protocol."""
        self._congested = True
        self._read_on()

    def resume_writing(self) -> None:
        """The client reads again; part of asyncio.Protocol."""
        self._congested = False
        self._read_on()
        if self._current is not None:
            self._current.client_keeps_up()
        else:
            self._next()

    # Receiver

    def on_expectation(self) -> Outcome | None:
        """Part of Receiver."""
        if self._is_free:
            request = self._parser.request
            request.expects_continue = False
            refusal = refusal_of(self._site, request)
            if refusal is not None:
                return refusal
            self._transport.write(_CONTINUE)
        return None

    def on_request(self, request: Request) -> None:
        """Part of Receiver."""
        self._has_asked = True
        if request.begun:
            self._upload_ended(request)
        elif self._is_free:
            self._begin(request)
        else:
            self._pipelined.append(request)
            self._read_on()

    def on_nonsense(self, data: bytes) -> bool:
        """Part of Receiver."""
        if self._has_asked or not data.startswith(PREFACE):
            return False
        self._step_aside()
        speak_http2(self._site, self._loop, self._transport, data)
        return True

    def on_body(self, data: bytes) -> None:
        """Part of Receiver."""
        request = self._parser.request
        limit = request.max_body_size_bytes
        if limit is not None and request.body_size > limit:
            self._parser.refuse(too_long_for(limit))
        elif self._current is not None:
            self._current.add_body(data)

    def on_rest(self, data: bytes) -> None:
        """Part of Receiver."""
        if self._socket is not None:
            self._socket.data_received(data)
        elif self._pipelined:
            self._rest += data

    # Client

    def body_taken(self) -> None:
        """Part of Client."""
        self._read_on()

    def cut(self) -> None:
        """Part of Client."""
        self._lost = True
        self._parser.done = True
        self._pipelined.clear()
        self._drop_current()
        self._transport.abort()

    def now(self) -> float:
        """Part of Client."""
        return self._loop.time()

    # The proxy's sweep and drain

    def on_deadline(self, now: float) -> None:
        """End the current request if its time is over; part of Mortal."""
        current = self._current
        if current is None or current.timeout_s is None or current.deadline is None:
            return
        if now < current.deadline:
            self._site.deadlines.watch(self, current.deadline)
        else:
            self._time_out(current, current.timeout_s)

    def look(self, now: float) -> None:
        """End what takes too long, but for the current request, which has a deadline of its own."""
        if self._current is not None:
            if self._current.is_arriving:
                self._look_at_upload(now)
        elif self._ended_at is not None:
            if now - self._ended_at > LINGER_S:
                self._transport.abort()
        elif self._parser.arriving:
            if self._is_late(now):
                self._parser.refuse(TOO_SLOW)
        elif now - self._idle_since > self._site.options.keep_alive_timeout_s:
            self.leave(now)

    def _look_at_upload(self, now: float) -> None:
        if not self._reading and peer_has_closed(self._transport):
            self.cut()
        elif self._is_late(now):
            self._parser.refuse(TOO_SLOW)

    def _is_late(self, now: float) -> bool:
        return self._arrival.is_late(now, self._site.options.request_arrival_timeout_s, reading=self._reading)

    @property
    def idle_since(self) -> float | None:
        """Part of Guest."""
        if self._current is not None or self._transport.is_closing() or self._ended_at is not None:
            return None
        return self._idle_since if self._is_last else None

    def leave(self, now: float) -> None:
        """Close; a client that was silent for so long and does not even read is cut off soon; part of Guest."""
        self._ended_at = now
        self._parser.done = True
        self._transport.close()

    def finish(self) -> None:
        """Close if the client is silent; else that happens after the answer, because the site is draining."""
        since, now = self.idle_since, self._loop.time()
        if since is not None and now - since >= QUIET_S:
            self._parser.done = True
            self._transport.close()

    def turn_away(self, outcome: Outcome) -> None:
        """Answer whatever is asked with this, and close."""
        self._parser.refuse(outcome)

    @property
    def _is_free(self) -> bool:
        """Say whether the next request can be served at once."""
        return self._current is None and not self._pipelined and not self._congested

    @property
    def _has_more(self) -> bool:
        return bool(self._pipelined)

    def _read_on(self) -> None:
        """Read what the client sends, unless it asks faster than it takes answers, or than a replica takes its body."""
        pipelined = self._pipelined
        wanted = not self._congested and len(pipelined) < MAX_PIPELINED and not self._body_is_enough
        if pipelined and pipelined[-1].is_websocket:
            wanted = False
        if wanted is not self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    @property
    def _body_is_enough(self) -> bool:
        """Say whether no more of the body that is arriving should be read now."""
        parser = self._parser
        if not parser.arriving or not parser.request.is_long:
            return False
        if parser.request.begun:
            upload = self._current.upload if self._current is not None else None
            return upload is not None and upload.is_full
        return parser.request.body_size >= UPLOAD_WINDOW_SIZE_BYTES

    def _more_to_come(self, request: Request) -> None:
        """A request has arrived in part; do not wait for the rest of a long body."""
        self._arrival.note(request, self._loop.time())
        if request.is_long and request.head_done:
            if not request.begun and self._is_free:
                self._begin_upload(request)
            self._read_on()

    def _begin_upload(self, request: Request) -> None:
        request.begun = True
        self._begin(request)
        request.body = b""

    def _upload_ended(self, request: Request) -> None:
        current = self._current
        if current is None:
            return
        if request.refused is None:
            current.end_body()
        elif current.started:
            self.cut()
        else:
            current.cancel()
            self.write_whole(current, outcome_head(request.refused), request.refused.body)

    def _begin(self, request: Request) -> None:
        if request.is_websocket and self._go_on_as_websocket(request):
            return
        exchange, outcome = exchange_for(self, self._site, self._caller, request)
        self._current = exchange
        if exchange.deadline is not None:
            self._site.deadlines.watch(self, exchange.deadline)
        begin(self, exchange, outcome)

    def _go_on_as_websocket(self, request: Request) -> bool:
        head, router, _ = look_up(self._site, self._caller, request)
        if router is None:
            return False
        times = (timeout_of(self._site, request), self._loop.time())
        self._socket = socket = websocket(self._site, self._transport, router, head, times)
        self._step_aside()
        socket.begin()
        if self._rest:
            socket.data_received(self._rest)
        return True

    def _step_aside(self) -> None:
        """Have no part in the connection any more; it goes on as another."""
        self._lost = True
        self._site.deadlines.forget(self)
        self._site.closed(self)

    def _finished(self, exchange: Exchange) -> None:
        self._current = None
        if not exchange.keep_alive or exchange.is_arriving or (self._site.draining and self._is_last):
            self._end()
        elif self._pipelined:
            # Not at once: each answer would be a deeper call.
            self._loop.call_soon(self._next)
        elif not self._parser.arriving:
            self._idle_since = self._loop.time()
        else:
            self._resume_arriving(self._parser)

    def _resume_arriving(self, parser: RequestParser) -> None:
        """Go on with a request that arrived in part while another one was answered."""
        request = parser.request
        if request.expects_continue and not request.body and (refusal := self.on_expectation()) is not None:
            parser.refuse(refusal)
        elif request.is_long and request.head_done:
            # Not at once: each answer would be a deeper call.
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if not self._lost and self._current is None and self._pipelined and not self._congested:
            request = self._pipelined.popleft()
            self._read_on()
            self._begin(request)
        elif not self._lost and self._parser.arriving:
            self._more_to_come(self._parser.request)

    def _end(self) -> None:
        """Close, once the client has read what it was sent."""
        self._pipelined.clear()
        parser = self._parser
        parser.done = True
        if parser.request.refused is None and not parser.arriving:
            self._transport.close()
            return
        # What it goes on sending must be read, or the system would break the connection and lose the answer.
        self._ended_at = self._loop.time()
        self._read_on()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _drop_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.cancel()

    def _time_out(self, exchange: Exchange, timeout_s: float) -> None:
        exchange.cancel()
        if exchange.started:
            self.cut()
            return
        outcome = timed_out(exchange.request_id, timeout_s)
        self.write_whole(exchange, outcome_head(outcome), outcome.body)
