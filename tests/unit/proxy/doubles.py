"""A client, a transport, a router and a loop that only pretend; no test of this room needs an event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec

from salver.handle.outgoing import Outgoing
from salver.handle.router import Router
from salver.lib.deadlines import Deadlines
from salver.proxy.batches import Batches
from salver.proxy.crowd import Guest
from salver.proxy.deadlines import Abandoned
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Heads
from salver.proxy.http import HttpConnection
from salver.proxy.places import Places
from salver.proxy.routes import RouteTable
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID
from salver.schema.outcomes import Outcome
from salver.schema.topics import Route, Routes
from salver.transport.wire import (
    CHUNK,
    CREDIT,
    END,
    ERROR,
    HTTP,
    MORE,
    RESPONSE,
    CreditHead,
    HttpHead,
    ResponseHead,
    TrailersHead,
)

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
PLAIN = [(b"content-type", b"text/plain")]


def routes(**prefixes: str) -> Routes:
    """Return routes from application names to prefixes."""
    return Routes(tuple(Route(prefix, app, DeploymentID("Ingress", app)) for app, prefix in prefixes.items()))


class Timer:
    """A call that has not come yet."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time that stands still, and callbacks that wait to be run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self._soon: deque[Callable[[], None]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        """Move on, from one timer to the next."""
        end = self.now + seconds
        while due := [each for each in self.timers if each.when <= end and not each.cancelled]:
            timer = min(due, key=lambda each: each.when)
            self.timers.remove(timer)
            self.now = timer.when
            timer.callback()
            self.run()
        self.now = end

    def run(self) -> None:
        while self._soon:
            self._soon.popleft()()


class Transport(asyncio.Transport):
    """Keeps what is written.

    Attributes:
        written: All of it.
        writes: One entry for each write.
        end: "close", "abort" or "eof" once the proxy ended the connection.
        unread: How many bytes the client has not read.
    """

    def __init__(self) -> None:
        super().__init__({"peername": ("1.2.3.4", 5678)})
        self.writes: list[bytes] = []
        self.end = ""
        self.reading = True
        self.protocol: asyncio.BaseProtocol | None = None
        self.unread = 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: Any) -> None:
        assert not self.end, f"{data!r} was written after the end ({self.end})"
        self.writes.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.end
        self.end = "eof"

    def close(self) -> None:
        self.end = self.end or "close"

    def is_closing(self) -> bool:
        return self.end in ("close", "abort")

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.end = "abort"

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class ReplicaEnd:
    """The replica's end of its connection with the proxy.

    Attributes:
        request: The request's head, as the replica decodes it.
        body: The request's body, as far as it was sent.
        complete: All of the body was sent.
        credit: Bytes that were granted.
    """

    def __init__(self) -> None:
        self.closed = False
        self.request: HttpHead
        self.body = b""
        self.complete = False
        self.credit = 0

    @property
    def connection(self) -> "ReplicaEnd":
        return self

    def send(self, kind: int, _stream: int, header: bytes = b"", body: bytes = b"", flags: int = 0) -> None:
        if kind == HTTP:
            self.request, self.body = msgspec.msgpack.decode(header, type=HttpHead), body
            self.complete = not flags & MORE
        elif kind == CHUNK:
            assert not self.complete
            self.body += body
        elif kind == END:
            assert not self.complete
            self.complete = True
        elif kind == CREDIT:
            self.credit += msgspec.msgpack.decode(header, type=CreditHead).size_bytes


class Asked(NamedTuple):
    """An exchange that reached a replica; these are the replica's answers to it."""

    exchange: Exchange
    replica: ReplicaEnd

    @property
    def head(self) -> HttpHead:
        return self.replica.request

    @property
    def body(self) -> bytes:
        return self.replica.body

    @property
    def complete(self) -> bool:
        return self.replica.complete

    def grant(self, size_bytes: int) -> None:
        """Let the client send more of the body."""
        self.frame(CREDIT, msgspec.msgpack.encode(CreditHead(size_bytes)), b"")

    def answer(self, body: bytes = b"", status: int = 200, headers: list[tuple[bytes, bytes]] = PLAIN) -> None:
        """Answer in one piece."""
        self.frame(RESPONSE, _head(status, headers), body)

    def start(self, body: bytes = b"", status: int = 200, headers: list[tuple[bytes, bytes]] = PLAIN) -> None:
        """Begin an answer."""
        self.frame(RESPONSE, _head(status, headers), body, MORE)

    def more(self, body: bytes) -> None:
        self.frame(CHUNK, b"", body)

    def end(self, body: bytes = b"", trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.frame(END, b"" if trailers is None else msgspec.msgpack.encode(TrailersHead(trailers)), body)

    def error(self) -> None:
        self.frame(ERROR, b"", b"")

    def frame(self, kind: int, header: bytes, body: bytes, flags: int = 0) -> None:
        if not self.exchange.abandoned:
            self.exchange.on_frame(kind, flags, 0, header, body)


class StubRouter:
    """Gives each request a replica of its own.

    Attributes:
        waits: Requests wait for a replica instead.
        refusal: Requests are refused with this error instead.
        asked: What reached a replica, in order.
        waiting: What waits.
        cancelled: What was cancelled.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.waits = False
        self.refusal: SalverError | None = None
        self.asked: list[Asked] = []
        self.waiting: list[Outgoing] = []
        self.cancelled: list[Outgoing] = []

    def route(self, outgoing: Exchange) -> None:
        if self.refusal is not None:
            outgoing.abandoned = True
            outgoing.on_refused(self.refusal)
        elif self.waits:
            self.waiting.append(outgoing)
        else:
            replica = ReplicaEnd()
            outgoing.channel, outgoing.stream = replica, 1  # type: ignore[assignment]
            outgoing.write(replica, 1, 0)  # type: ignore[arg-type]
            self.asked.append(Asked(outgoing, replica))

    def cancel(self, outgoing: Outgoing) -> None:
        if not outgoing.abandoned:
            outgoing.abandoned = True
            self.cancelled.append(outgoing)


class FakeSite:
    """A proxy with an application at "/" and another at "/app"."""

    def __init__(self, *, root_path: str = "", max_body: int | None = None) -> None:
        self.loop = Loop()
        self.routers: dict[str, StubRouter] = {}
        self.places = Places(RouteTable(routes(root="/", app="/app"), root_path), self._router, max_body)
        self.heads = Heads()
        self.date = DATE
        self.options = HTTPOptions(keep_alive_timeout_s=90)
        self.batches = Batches(cast("asyncio.AbstractEventLoop", self.loop))
        self.deadlines = Deadlines(self.loop.time, self.loop.call_later)
        self.scheme = "http"
        self.draining = False
        self.open: set[Guest] = set()
        self.unattended: set[Abandoned] = set()

    def _router(self, deployment: DeploymentID) -> Router:
        name = deployment.app_name
        router = self.routers.setdefault(name, StubRouter(name))
        return cast("Router", router)

    @property
    def root(self) -> StubRouter:
        return cast("StubRouter", self._router(DeploymentID("Ingress", "root")))

    @property
    def app(self) -> StubRouter:
        return cast("StubRouter", self._router(DeploymentID("Ingress", "app")))

    def own_answer(self, path: str) -> Outcome | None:
        return Outcome(200, b"success") if path == "/-/healthz" else None

    def opened(self, guest: Guest) -> None:
        self.open.add(guest)

    def closed(self, guest: Guest) -> None:
        self.open.discard(guest)

    def woke(self, guest: Guest) -> None:
        guest.resting = False

    def settled(self) -> None:
        """Nobody waits for it here."""


class Answer(NamedTuple):
    """A parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Browser:
    """A client and its connection to the proxy."""

    def __init__(self, site: FakeSite | None = None) -> None:
        self.site = site or FakeSite()
        self.transport = Transport()
        self.connection = HttpConnection(self.site, cast("asyncio.AbstractEventLoop", self.site.loop))
        self.connection.connection_made(self.transport)
        self._read = 0

    @property
    def asked(self) -> list[Asked]:
        return self.site.root.asked

    @property
    def end(self) -> str:
        return self.transport.end

    def send(self, *pieces: bytes) -> None:
        """Send bytes, a piece at a time."""
        for piece in pieces:
            self.connection.data_received(piece)
            self.site.loop.run()

    def get(self, target: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> Asked:
        """Send a request; return it as it reached the application at "/"."""
        self.send(request(target, *headers, method=method, version=version))
        return self.asked[-1]

    def leave(self) -> None:
        """Close the connection."""
        self.connection.connection_lost(None)

    def wait(self, seconds: float) -> None:
        """Let time pass, and the proxy look."""
        self.site.loop.pass_time(seconds)
        self.connection.look(self.site.loop.now)
        self.site.loop.run()

    def settle(self) -> None:
        self.site.loop.run()

    def news(self) -> bytes:
        """Return what was written since the last time."""
        self.settle()
        written = self.transport.written[self._read :]
        self._read += len(written)
        return written

    def answer(self) -> Answer:
        """Return the one answer that was written since the last time."""
        [answer] = parsed(self.news())
        return answer


def request(target: str = "/", *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """Return a request's bytes."""
    lines = [f"{method} {target} HTTP/{version}", "Host: here", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parsed(data: bytes) -> list[Answer]:
    """Return the answers in some bytes, all of them with bodies."""
    answers = []
    while data:
        head, empty_line, data = data.partition(b"\r\n\r\n")
        assert empty_line, head
        lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines[1:]]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header twice: {head!r}"
        size = int(headers.get("content-length", 0))
        body, data = data[:size], data[size:]
        if headers.get("transfer-encoding") == "chunked":
            body, data = _unchunked(data)
        answers.append(Answer(int(lines[0].split()[1]), headers, body))
    return answers


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        piece, data = data[: int(size, 16)], data[int(size, 16) + 2 :]
        if not piece:
            return body, data
        body += piece


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    return msgspec.msgpack.encode(ResponseHead(status, headers))
