"""The proxy's server: accepts clients, keeps the routes, sweeps away who is too slow, drains."""

import asyncio
import json
import socket
from email.utils import formatdate

from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.lib.clock import wall_time_s
from salver.proxy.heads import Heads
from salver.proxy.http import HttpConnection
from salver.proxy.limits import SWEEP_PERIOD_S
from salver.proxy.places import Places
from salver.proxy.routes import RouteTable
from salver.schema.http import HTTPOptions
from salver.schema.messages import ROUTES_TOPIC, Routes, TopicValue
from salver.schema.outcomes import Outcome

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
    """

    def __init__(
        self, link: ControllerLink, routers: Routers, options: HTTPOptions, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.options = options
        self.heads = Heads()
        self.date = b""
        self.draining = False
        self._link = link
        self._routers = routers
        self._loop = loop
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._known = asyncio.Event()
        self._closed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._second = -1
        self.places = self._places(Routes())

    async def start(self, listener: socket.socket) -> None:
        """Accept clients as soon as the routes are known."""
        self._link.subscribe(ROUTES_TOPIC, self._routes_changed)
        await self._known.wait()
        self._sweep()
        listener.setblocking(False)
        self._server = await self._loop.create_server(
            lambda: HttpConnection(self, self._loop), sock=listener, backlog=BACKLOG
        )

    async def drain(self) -> None:
        """Accept nobody new, and return when every client has its answer."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.finish()
        while self._connections:
            self._closed.clear()
            await self._closed.wait()

    def close(self) -> None:
        """Stop the sweep."""
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

    def opened(self, connection: HttpConnection) -> None:
        """Part of Site."""
        self._connections.add(connection)

    def closed(self, connection: HttpConnection) -> None:
        """Part of Site."""
        self._connections.discard(connection)
        self._closed.set()

    def _routes_changed(self, value: TopicValue) -> None:
        if isinstance(value, Routes):
            self.places = self._places(value)
            # Who serves is known before the first request asks for it.
            for route in value.routes:
                self._routers.get(route.ingress)
            self._known.set()

    def _places(self, routes: Routes) -> Places:
        return Places(RouteTable(routes, self.options.root_path), self._routers.get)

    def _sweep(self) -> None:
        """Look at all clients once; one timer for all costs less than one for each."""
        self._timer = self._loop.call_later(SWEEP_PERIOD_S, self._sweep)
        now = self._loop.time()
        if int(now) != self._second:
            self._second = int(now)
            self.date = b"date: %b\r\n" % formatdate(wall_time_s(), usegmt=True).encode()
        for connection in list(self._connections):
            connection.look(now)
