"""HTTP/1.1 for one client: bytes in, exchanges to the router, answers out, in the order they were asked for."""

import asyncio
import logging
from collections import deque
from typing import Protocol, cast
from urllib.parse import unquote

import httptools

from salver.handle.request_context import request_ids
from salver.handle.router import Router
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head, Heads, outcome_head
from salver.proxy.limits import (
    MAX_BODY_SIZE_BYTES,
    MAX_HEADERS,
    MAX_HEADERS_SIZE_BYTES,
    MAX_PIPELINED,
    MAX_REQUEST_ID_SIZE_BYTES,
    MAX_TARGET_SIZE_BYTES,
)
from salver.proxy.routes import RouteTable
from salver.schema.ids import DeploymentID
from salver.schema.outcomes import Outcome, not_found
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import HttpHead

logger = logging.getLogger(LOGGER_NAME)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD_REQUEST = Outcome(400, b"Bad Request: this is not HTTP/1.1 as RFC 9112 has it.")
_TOO_LONG_TARGET = Outcome(414, b"URI Too Long: at most %d bytes are allowed." % MAX_TARGET_SIZE_BYTES)
_TOO_LARGE_HEADERS = Outcome(
    431, b"Request Header Fields Too Large: at most %d bytes in %d fields." % (MAX_HEADERS_SIZE_BYTES, MAX_HEADERS)
)
_TOO_LARGE_BODY = Outcome(413, b"Content Too Large: at most %d bytes are allowed." % MAX_BODY_SIZE_BYTES)
_TIMEOUT = Outcome(408, b"Request Timeout: the request did not arrive in time.")


class RouteTarget:
    """An application's router and how it is mounted."""

    __slots__ = ("prefix", "root_path", "router")

    def __init__(self, router: Router, root_path: str, prefix: str) -> None:
        self.router = router
        self.root_path = root_path
        self.prefix = prefix


class Site(Protocol):
    """What the connections of a proxy share.

    Attributes:
        date: The current `date` header line.
    """

    routes: RouteTable
    heads: Heads
    date: bytes
    draining: bool

    def router(self, deployment: DeploymentID) -> Router:
        """Return the router of a deployment."""

    def own_answer(self, path: str) -> Outcome | None:
        """Return the answer for the proxy's own paths, or None."""

    def opened(self, connection: "HttpConnection") -> None:
        """A client has come."""

    def closed(self, connection: "HttpConnection") -> None:
        """A client has gone."""


class _Request:
    """A request as it is being parsed."""

    __slots__ = ("body", "body_size", "expects_continue", "headers", "headers_size", "refused", "request_id", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.headers_size = 0
        self.body: list[bytes] = []
        self.body_size = 0
        self.request_id = ""
        self.expects_continue = False
        self.refused: Outcome | None = None


class HttpConnection(asyncio.Protocol):
    """One client's connection.

    Attributes:
        idle_since: Loop time since which nothing is asked; None while something is.
        request_began: Loop time when the request that is still arriving began; None between requests.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._client: tuple[str, int] | None = None
        self._request = _Request()
        self._current: Exchange | None = None
        self._pipelined: deque[tuple[HttpHead, RouteTarget | Outcome, bytes, bool]] = deque()
        self._closing = False
        self._lost = False
        self._paused = False
        self.idle_since: float | None = None
        self.request_began: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # uvloop's transports do what asyncio.Transport says without being one.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self.idle_since = self._loop.time()
        self._site.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._lost = True
        self._pipelined.clear()
        if self._current is not None:
            self._current.cancel()
            self._current = None
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self._closing:
            return
        if self.request_began is None:
            self.request_began = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody here speaks the other protocol; the request is answered as HTTP and the connection ends.
            self._closing = True
        except httptools.HttpParserCallbackError:
            logger.exception("a request could not be handled")
            self.cut()
        except httptools.HttpParserError:
            self._refuse(_BAD_REQUEST)

    def pause_writing(self) -> None:
        """The client reads slowly; part of asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client reads again; part of asyncio.Protocol."""
        self._paused = False
        if self._current is not None:
            self._current.client_keeps_up()

    # httptools

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self._request = _Request()
        self.idle_since = None

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol."""
        request = self._request
        request.target += url
        if len(request.target) > MAX_TARGET_SIZE_BYTES:
            self._refuse(_TOO_LONG_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        request = self._request
        name = name.lower()
        request.headers.append((name, value))
        request.headers_size += len(name) + len(value) + 4
        if request.headers_size > MAX_HEADERS_SIZE_BYTES or len(request.headers) > MAX_HEADERS:
            self._refuse(_TOO_LARGE_HEADERS)
        elif name == b"x-request-id":
            request.request_id = request.request_id or value[:MAX_REQUEST_ID_SIZE_BYTES].decode("latin-1")
        elif name == b"expect" and value.lower() == b"100-continue":
            request.expects_continue = True
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_SIZE_BYTES:
            self._refuse(_TOO_LARGE_BODY)

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        if self._request.expects_continue and not self._closing and self._current is None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        request = self._request
        if self._closing:
            return
        request.body.append(body)
        request.body_size += len(body)
        if request.body_size > MAX_BODY_SIZE_BYTES:
            self._refuse(_TOO_LARGE_BODY)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        if self._closing:
            return
        request, parser = self._request, self._parser
        self.request_began = None
        path, query, raw_path = _split_target(request.target)
        target = self._find(path)
        root_path, route = (target.root_path, target.prefix) if isinstance(target, RouteTarget) else ("", "")
        head = HttpHead(
            parser.get_method().decode("latin-1"),
            path,
            query,
            parser.get_http_version(),
            request.headers,
            self._client,
            request.request_id or request_ids.new(),
            root_path,
            route,
            raw_path,
        )
        body = request.body[0] if len(request.body) == 1 else b"".join(request.body)
        keep_alive = parser.should_keep_alive()
        if self._current is None and not self._pipelined:
            self._begin(head, target, body, keep_alive)
        else:
            self._pipelined.append((head, target, body, keep_alive))
            if len(self._pipelined) >= MAX_PIPELINED:
                self._transport.pause_reading()

    # Client

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._site.heads.get(encoded)

    def write_whole(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        end = self._end_of_head(exchange)
        if exchange.is_head or head.bodyless:
            self._transport.write(head.text + end)
        elif head.sized:
            self._transport.write(head.text + end + body)
        else:
            self._transport.write(b"%bcontent-length: %d\r\n%b%b" % (head.text, len(body), end, body))
        self._finished(exchange)

    def write_start(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        exchange.chunked = not head.sized and not head.bodyless
        framing = b"transfer-encoding: chunked\r\n" if exchange.chunked else b""
        self._transport.write(head.text + framing + self._end_of_head(exchange))
        if body:
            self.write_more(exchange, body)

    def write_more(self, exchange: Exchange, body: bytes) -> bool:
        """Part of Client."""
        if self._lost or not body:
            return True
        if not exchange.is_head:
            self._transport.write(b"%x\r\n%b\r\n" % (len(body), body) if exchange.chunked else body)
        return not self._paused

    def write_end(self, exchange: Exchange, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        self.write_more(exchange, body)
        if exchange.chunked and not exchange.is_head:
            self._transport.write(b"0\r\n\r\n")
        self._finished(exchange)

    def cut(self) -> None:
        """Part of Client."""
        self._current = None
        self._transport.abort()

    # The proxy's sweep and drain

    def time_out_request(self, timeout_s: float) -> None:
        """The exchange has taken too long."""
        exchange = self._current
        if exchange is None:
            return
        exchange.cancel()
        if exchange.started:
            self.cut()
        else:
            text = f"Request {exchange.request_id} timed out after {timeout_s:.1f}s."
            self.write_whole(exchange, outcome_head(Outcome(408, text.encode())), text.encode())

    def time_out_arrival(self) -> None:
        """The client takes too long to send its request."""
        self._refuse(_TIMEOUT)

    def running_since(self) -> float | None:
        """Return the loop time at which the running exchange began, or None."""
        return None if self._current is None else self._current.began_at

    def finish(self) -> None:
        """Close when nothing is being answered any more."""
        self._closing = self._closing or self._current is not None
        if self._current is None:
            self._transport.close()

    def _find(self, path: str) -> RouteTarget | Outcome:
        own = self._site.own_answer(path) if path.startswith("/-/") else None
        if own is not None:
            return own
        match = self._site.routes.match(path)
        if match is None:
            return not_found(path)
        return RouteTarget(self._site.router(match.route.ingress), match.root_path, match.route.prefix)

    def _begin(self, head: HttpHead, target: RouteTarget | Outcome, body: bytes, keep_alive: bool) -> None:  # noqa: FBT001 - from one place
        router = target.router if isinstance(target, RouteTarget) else None
        exchange = Exchange(self, router, head, body, keep_alive=keep_alive, began_at=self._loop.time())
        self._current = exchange
        if isinstance(target, RouteTarget):
            target.router.route(exchange)
        else:
            self.write_whole(exchange, outcome_head(target), target.body)

    def _end_of_head(self, exchange: Exchange) -> bytes:
        keep = exchange.keep_alive and not self._closing and not self._site.draining
        exchange.keep_alive = keep
        return b"x-request-id: %b\r\n%b%b\r\n" % (
            exchange.request_id.encode("latin-1", "replace"),
            self._site.date,
            b"" if keep else b"connection: close\r\n",
        )

    def _finished(self, exchange: Exchange) -> None:
        self._current = None
        if not exchange.keep_alive:
            self._closing = True
            self._transport.close()
        elif self._pipelined:
            self._loop.call_soon(self._next)
        else:
            self.idle_since = self._loop.time()

    def _next(self) -> None:
        if self._lost or self._current is not None or not self._pipelined:
            return
        if len(self._pipelined) >= MAX_PIPELINED:
            self._transport.resume_reading()
        self._begin(*self._pipelined.popleft())

    def _refuse(self, outcome: Outcome) -> None:
        """Answer a request that cannot be served, after those before it, and close."""
        if self._closing or self._lost:
            return
        self._closing = True
        if self._current is None:
            head = outcome_head(outcome)
            request_id = (self._request.request_id or request_ids.new()).encode("latin-1", "replace")
            self._transport.write(
                b"%bx-request-id: %b\r\nconnection: close\r\n\r\n%b" % (head.text, request_id, outcome.body)
            )
            self._transport.close()


def _split_target(target: bytes) -> tuple[str, bytes, str]:
    """Return the decoded path, the query, and the path as it was sent."""
    if not target.startswith(b"/"):
        url = httptools.parse_url(target) if target != b"*" else None
        raw, query = (url.path or b"/", url.query or b"") if url is not None else (b"*", b"")
    else:
        raw, _, query = target.partition(b"?")
    raw_path = raw.decode("latin-1")
    return (unquote(raw_path) if "%" in raw_path else raw_path), query, raw_path
