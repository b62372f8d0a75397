"""HTTP/1.1 for one client: bytes in, exchanges to the router, answers out, in the order they were asked for."""

import asyncio
import logging
from collections import deque
from typing import Protocol, cast

from salver.handle.request_context import request_ids
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head, Heads, outcome_head
from salver.proxy.limits import LINGER_S, MAX_PIPELINED, REQUEST_TIMEOUT_S
from salver.proxy.parsing import TOO_SLOW, Request, RequestParser
from salver.proxy.places import Places
from salver.schema.http import HTTPOptions
from salver.schema.outcomes import Outcome
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import HttpHead

logger = logging.getLogger(LOGGER_NAME)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Site(Protocol):
    """What the connections of a proxy share.

    Attributes:
        places: Who answers which path.
        heads: The heads of replicas' answers.
        date: The current `date` header line.
        options: How long requests and silence may take.
        draining: Connections end when they have answered what was asked.
    """

    places: Places
    heads: Heads
    date: bytes
    options: HTTPOptions
    draining: bool

    def own_answer(self, path: str) -> Outcome | None:
        """Return the answer for the proxy's own paths, or None."""

    def opened(self, connection: "HttpConnection") -> None:
        """A client has come."""

    def closed(self, connection: "HttpConnection") -> None:
        """A client has gone."""


class HttpConnection(asyncio.Protocol):
    """One client's connection.

    Args:
        site: What it shares with others.
        loop: Tells the time, and calls back.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self._loop = loop
        self._parser = RequestParser(self)
        self._transport: asyncio.Transport
        self._client: tuple[str, int] | None = None
        self._current: Exchange | None = None
        self._pipelined: deque[Request] = deque()
        self._lost = False
        self._congested = False
        self._reading = True
        self._idle_since = loop.time()
        self._arriving: Request | None = None
        self._arriving_since = 0.0
        self._ended_at: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self._site.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._lost = True
        self._pipelined.clear()
        self._drop_current()
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        parser = self._parser
        try:
            parser.feed(data)
        except Exception:
            logger.exception("a request could not be handled")
            self.cut()
        if parser.arriving and parser.request is not self._arriving:
            self._arriving, self._arriving_since = parser.request, self._loop.time()

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

    def on_expectation(self) -> None:
        """Part of Receiver."""
        if self._is_free:
            self._transport.write(_CONTINUE)
            self._parser.request.expects_continue = False

    def on_request(self, request: Request) -> None:
        """Part of Receiver."""
        if self._is_free:
            self._begin(request)
        else:
            self._pipelined.append(request)
            self._read_on()

    # Client

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._site.heads.get(encoded)

    def write_whole(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        text = head.sized(len(body))
        if exchange.is_head or head.bodyless:
            # The length is that of the body which a GET would have had.
            text, body = (head.whole if head.length is not None else text), b""
        connection = self._connection_header(exchange)
        self._transport.write(
            b"%bx-request-id: %b\r\n%b%b\r\n%b" % (text, exchange.request_id, self._site.date, connection, body)
        )
        self._finished(exchange)

    def write_start(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        exchange.is_head = exchange.is_head or head.bodyless
        exchange.missing = head.length
        framing = b""
        if head.length is None and not head.bodyless:
            if exchange.is_old:
                exchange.keep_alive = False
            else:
                exchange.chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        connection = self._connection_header(exchange)
        self._transport.write(
            b"%b%bx-request-id: %b\r\n%b%b\r\n"
            % (head.whole, framing, exchange.request_id, self._site.date, connection)
        )
        self.write_more(exchange, body)

    def write_more(self, exchange: Exchange, body: bytes) -> bool:
        """Part of Client."""
        if self._lost or not body or exchange.is_head:
            return True
        if exchange.missing is not None:
            exchange.missing -= len(body)
            if exchange.missing < 0:
                # More than was announced would be taken for the next answer.
                self.cut()
                return True
        self._transport.write(b"%x\r\n%b\r\n" % (len(body), body) if exchange.chunked else body)
        return not self._congested

    def write_end(self, exchange: Exchange, body: bytes) -> None:
        """Part of Client."""
        self.write_more(exchange, body)
        if self._lost or self._current is not exchange:
            return
        if exchange.missing and not exchange.is_head:
            self.cut()
            return
        if exchange.chunked and not exchange.is_head:
            self._transport.write(_LAST_CHUNK)
        self._finished(exchange)

    def cut(self) -> None:
        """Part of Client."""
        self._lost = True
        self._parser.done = True
        self._pipelined.clear()
        self._drop_current()
        self._transport.abort()

    # The proxy's sweep and drain

    def look(self, now: float) -> None:
        """End what takes too long."""
        options = self._site.options
        current, timeout_s = self._current, options.request_timeout_s
        if current is not None:
            if timeout_s is not None and 0 < timeout_s < now - current.began_at:
                self._time_out(current, timeout_s)
        elif self._ended_at is not None:
            if now - self._ended_at > LINGER_S:
                self._transport.abort()
        elif self._parser.arriving:
            if now - self._arriving_since > REQUEST_TIMEOUT_S:
                self._parser.refuse(TOO_SLOW)
        elif now - self._idle_since > options.keep_alive_timeout_s:
            self._transport.close()

    def finish(self) -> None:
        """Close if nothing is asked; else that happens after the answer, because the site is draining."""
        if self._current is None and self._is_last:
            self._transport.close()

    @property
    def _is_free(self) -> bool:
        """Say whether the next request can be served at once."""
        return self._current is None and not self._pipelined and not self._congested

    @property
    def _is_last(self) -> bool:
        """Say whether nothing was asked after what is answered now."""
        return not self._pipelined and not self._parser.arriving

    def _read_on(self) -> None:
        """Read what the client sends, unless it asks faster than it takes answers."""
        wanted = not self._congested and len(self._pipelined) < MAX_PIPELINED
        if wanted is not self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _begin(self, request: Request) -> None:
        if request.request_id:
            request_id = request.request_id.decode("latin-1")
        else:
            request_id = request_ids.new()
            request.request_id = request_id.encode()
        place, query = self._site.places.find(request.target)
        outcome = request.refused or (self._site.own_answer(place.path) if place.is_own else None) or place.outcome
        head = HttpHead(
            request.method,
            place.path,
            query,
            request.version,
            request.headers,
            self._client,
            request_id,
            place.root_path,
            place.prefix,
            place.raw_path,
        )
        router = place.router if outcome is None else None
        self._current = exchange = Exchange(self, router, head, request, self._loop.time())
        if router is not None:
            router.route(exchange)
        elif outcome is not None:
            self.write_whole(exchange, outcome_head(outcome), outcome.body)

    def _connection_header(self, exchange: Exchange) -> bytes:
        """Settle whether the connection stays; return the header that says so, where one is needed."""
        if not exchange.keep_alive or (self._site.draining and self._is_last):
            exchange.keep_alive = False
            return _CLOSE
        return _KEEP_ALIVE if exchange.is_old else b""

    def _finished(self, exchange: Exchange) -> None:
        self._current = None
        if not exchange.keep_alive or (self._site.draining and self._is_last):
            self._end()
        elif self._pipelined:
            # Not at once: each answer would be a deeper call.
            self._loop.call_soon(self._next)
        elif not self._parser.arriving:
            self._idle_since = self._loop.time()
        elif self._parser.request.expects_continue and not self._parser.request.body:
            self.on_expectation()

    def _next(self) -> None:
        if not self._lost and self._current is None and self._pipelined and not self._congested:
            request = self._pipelined.popleft()
            self._read_on()
            self._begin(request)

    def _end(self) -> None:
        """Close, once the client has read what it was sent."""
        self._pipelined.clear()
        self._parser.done = True
        if self._parser.request.refused is None:
            self._transport.close()
            return
        # What it goes on sending must be read, or the system would break the connection and lose the answer.
        self._ended_at = self._loop.time()
        self._read_on()
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
        request_id = exchange.request_id.decode("latin-1")
        outcome = Outcome(408, f"Request {request_id} timed out after {timeout_s:.1f}s.".encode())
        self.write_whole(exchange, outcome_head(outcome), outcome.body)
