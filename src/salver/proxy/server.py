"""The proxy's server: accepts clients, keeps the routes, sweeps away who is too slow, drains."""

import asyncio
import json
import socket
from collections.abc import Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.lib.clock import wall_time_s
from salver.lib.deadlines import Deadlines
from salver.lib.processes import open_files_limit
from salver.proxy.batches import Batches
from salver.proxy.crowd import Crowd, Guest
from salver.proxy.heads import Heads
from salver.proxy.http import HttpConnection
from salver.proxy.limits import (
    CERTIFICATE_PERIOD_S,
    FLUSH_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    RESERVED_FILES,
    SWEEP_PERIOD_S,
)
from salver.proxy.places import Places
from salver.proxy.routes import RouteTable
from salver.proxy.tls import Certificate
from salver.schema.http import HTTPOptions
from salver.schema.outcomes import Outcome
from salver.schema.topics import ROUTES_TOPIC, Routes, TopicValue

if TYPE_CHECKING:
    from salver.proxy.deadlines import Abandoned

BACKLOG = 4096
"""Connections that wait while no proxy accepts them; listening anew with fewer would shrink the agent's."""

_JSON = (b"content-type", b"application/json")
_HEALTHY = Outcome(200, b"success")
_NO_ROUTES = Outcome(503, b"Route table is not populated yet.")
_DRAINING = Outcome(503, b"This node is being drained.")


class ProxyServer:
    """Serves HTTP on one listening socket; the `Site` of its connections.

    Args:
        link: Line to the controller, which tells the routes.
        routers: This process's routers.
        loop: Tells the time, and calls back.

    Raises:
        BadTlsFile: The certificate cannot be used.
    """

    def __init__(
        self, link: ControllerLink, routers: Routers, options: HTTPOptions, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.options = options
        self.heads = Heads()
        self.date = b""
        self.batches = Batches(loop)
        self.deadlines = Deadlines(loop.time, loop.call_later)
        self.scheme = options.scheme
        self.draining = False
        self._certificate = Certificate(options.tls) if options.tls is not None else None
        self._link = link
        self._routers = routers
        self._loop = loop
        self.unattended: set[Abandoned] = set()
        self._crowd = Crowd(options.max_connections or _most_connections())
        self._server: asyncio.Server | None = None
        self._known = asyncio.Event()
        self._closed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._second = -1
        self.places = self._places(Routes())

    async def start(self, listener: socket.socket) -> None:
        """Accept clients as soon as the routes are known."""
        await self.know_routes()
        listener.setblocking(False)
        self._server = await self._loop.create_server(
            lambda: HttpConnection(self, self._loop), sock=listener, backlog=BACKLOG, **self._tls()
        )

    async def know_routes(self) -> None:
        """Return when the routes are known; from then on they are kept up to date."""
        self._link.subscribe(ROUTES_TOPIC, self._routes_changed)
        await self._known.wait()
        self._sweep()

    def _tls(self) -> Mapping[str, Any]:
        if self._certificate is None:
            return {}
        return {
            "ssl": self._certificate.context,
            "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S,
            "ssl_shutdown_timeout": FLUSH_TIMEOUT_S,
        }

    async def drain(self) -> None:
        """Accept nobody new, and return when every client has its answer."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        self._crowd.finish()
        while self._crowd or self.unattended:
            self._closed.clear()
            await self._closed.wait()

    def close(self) -> None:
        """Stop the sweep."""
        self.deadlines.close()
        if self._timer is not None:
            self._timer.cancel()

    # Site

    def own_answer(self, path: str) -> Outcome | None:
        """Answer the reserved paths, whoever owns "/"; part of Site."""
        if path not in ("/-/healthz", "/-/routes"):
            return None
        if self.draining:
            return _DRAINING
        if not self._known.is_set():
            return _NO_ROUTES
        if path == "/-/healthz":
            return _HEALTHY
        return Outcome(200, json.dumps(self.places.table.by_prefix, separators=(",", ":")).encode(), (_JSON,))

    def opened(self, guest: Guest) -> None:
        """Part of Site."""
        self._crowd.opened(guest, self._loop.time())

    def closed(self, guest: Guest) -> None:
        """Part of Site."""
        self._crowd.closed(guest)
        self._closed.set()

    def woke(self, guest: Guest) -> None:
        """Part of Site."""
        self._crowd.woke(guest)

    def settled(self) -> None:
        """Part of Site."""
        self._closed.set()

    def _routes_changed(self, value: TopicValue) -> None:
        if isinstance(value, Routes):
            self.places = self._places(value)
            # Who serves is known before the first request asks for it.
            for route in value.routes:
                self._routers.get(route.ingress)
            self._known.set()

    def _places(self, routes: Routes) -> Places:
        table = RouteTable(routes, self.options.root_path)
        return Places(table, self._routers.get, self.options.max_request_body_bytes)

    def _sweep(self) -> None:
        """Look at all clients once; one timer for all costs less than one for each."""
        self._timer = self._loop.call_later(SWEEP_PERIOD_S, self._sweep)
        now = self._loop.time()
        if int(now) != self._second:
            self._second = int(now)
            self.date = b"date: %b\r\n" % formatdate(wall_time_s(), usegmt=True).encode()
            if self._certificate is not None and self._second % CERTIFICATE_PERIOD_S == 0:
                self._certificate.look()
        self._crowd.sweep(now, self.options.keep_alive_timeout_s)
        if self.draining:
            self._crowd.finish()


def _most_connections() -> int:
    """Return how many connections fit into the files that this process may open."""
    files = open_files_limit()
    return max(1, files - min(RESERVED_FILES, files // 2))
