"""The proxy's server: accepts clients, keeps the routes, sweeps away who is too slow, drains."""

import asyncio
import json
import socket
from email.utils import formatdate

from salver.handle.link import ControllerLink
from salver.handle.router import Router
from salver.handle.routers import Routers
from salver.lib.clock import wall_time_s
from salver.lib.tasks import Tasks
from salver.proxy.heads import Heads
from salver.proxy.http import HttpConnection
from salver.proxy.limits import REQUEST_TIMEOUT_S, SWEEP_PERIOD_S
from salver.proxy.routes import RouteTable
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID
from salver.schema.messages import ROUTES_TOPIC, Routes, TopicValue
from salver.schema.outcomes import Outcome

_JSON = (b"content-type", b"application/json")
_HEALTHY = Outcome(200, b"success")
_NO_ROUTES = Outcome(503, b"Route table is not populated yet.")
_DRAINING = Outcome(503, b"This node is being drained.")


class ProxyServer:
    """Serves HTTP on one listening socket; the `Site` of its connections.

    Args:
        link: Line to the controller, which tells the routes.
        routers: This process's routers.
    """

    def __init__(self, link: ControllerLink, routers: Routers, options: HTTPOptions, tasks: Tasks) -> None:
        self.routes = RouteTable(Routes(), options.root_path)
        self.heads = Heads()
        self.date = b""
        self.draining = False
        self._link = link
        self._routers = routers
        self._options = options
        self._tasks = tasks
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._known = asyncio.Event()
        self._empty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0

    async def start(self, listener: socket.socket) -> None:
        """Accept clients as soon as the routes are known."""
        self._link.subscribe(ROUTES_TOPIC, self._routes_changed)
        await self._known.wait()
        self._sweep()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: HttpConnection(self), sock=listener)

    async def drain(self) -> None:
        """Accept nobody new, and return when every client has its answer."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.finish()
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def close(self) -> None:
        """Stop the sweep."""
        if self._timer is not None:
            self._timer.cancel()

    # Site

    def router(self, deployment: DeploymentID) -> Router:
        """Return the router of a deployment; part of Site."""
        return self._routers.get(deployment)

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
        return Outcome(200, json.dumps(self.routes.by_prefix, separators=(",", ":")).encode(), (_JSON,))

    def opened(self, connection: HttpConnection) -> None:
        """Part of Site."""
        self._connections.add(connection)

    def closed(self, connection: HttpConnection) -> None:
        """Part of Site."""
        self._connections.discard(connection)
        self._empty.set()

    def _routes_changed(self, value: TopicValue) -> None:
        if isinstance(value, Routes):
            self.routes = RouteTable(value, self._options.root_path)
            # Connections to replicas open before the first request needs them.
            for route in value.routes:
                self._routers.get(route.ingress)
            self._known.set()

    def _sweep(self) -> None:
        """Look at all clients once; one timer for all costs less than one for each."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if int(now) != self._second:
            self._second = int(now)
            self.date = b"date: %b\r\n" % formatdate(wall_time_s(), usegmt=True).encode()
        for connection in list(self._connections):
            self._check(connection, now)
        self._timer = loop.call_later(SWEEP_PERIOD_S, self._sweep)

    def _check(self, connection: HttpConnection, now: float) -> None:
        timeout_s = self._options.request_timeout_s
        began = connection.running_since()
        if began is not None:
            if timeout_s is not None and timeout_s > 0 and now - began > timeout_s:
                connection.time_out_request(timeout_s)
        elif connection.request_began is not None:
            if now - connection.request_began > REQUEST_TIMEOUT_S:
                connection.time_out_arrival()
        elif connection.idle_since is not None and now - connection.idle_since > self._options.keep_alive_timeout_s:
            connection.finish()


