"""The server: routes, own paths, the sweep, draining."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from salver.handle.link import ControllerLink, OnValue
from salver.handle.routers import Routers
from salver.proxy import server as server_module
from salver.proxy.http import HttpConnection
from salver.proxy.limits import QUIET_S, SWEEP_PERIOD_S
from salver.proxy.server import BACKLOG, ProxyServer
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID
from salver.schema.outcomes import Outcome
from salver.schema.status import ServeStatus
from salver.schema.topics import ROUTES_TOPIC, Routes, Status
from tests.unit.proxy.doubles import Loop, StubRouter, Transport, parsed, request, routes


class Link:
    """Keeps who subscribed."""

    def __init__(self) -> None:
        self.callbacks: dict[str, OnValue] = {}

    def subscribe(self, topic: str, on_value: OnValue) -> None:
        self.callbacks[topic] = on_value


class StubRouters:
    """Keeps one router for each deployment."""

    def __init__(self) -> None:
        self.made: dict[DeploymentID, StubRouter] = {}

    def get(self, deployment: DeploymentID) -> StubRouter:
        return self.made.setdefault(deployment, StubRouter(deployment.app_name))


class ServerLoop(Loop):
    """A loop with a listening socket."""

    def __init__(self) -> None:
        super().__init__()
        self.connect: Callable[[], HttpConnection]
        self.backlog = 0
        self.listening = False
        self.tls: dict[str, Any] = {}

    async def create_server(
        self, factory: Callable[[], HttpConnection], *, sock: socket.socket, backlog: int, **tls: Any
    ) -> "ServerLoop":
        self.tls = tls
        self.connect, self.backlog, self.listening = factory, backlog, True
        return self

    def close(self) -> None:
        self.listening = False


class Proxy:
    """A server and what it stands on."""

    def __init__(self, **options: Any) -> None:
        self.loop = ServerLoop()
        self.link = Link()
        self.routers = StubRouters()
        self.server = ProxyServer(
            cast("ControllerLink", self.link),
            cast("Routers", self.routers),
            HTTPOptions(**options),
            cast("asyncio.AbstractEventLoop", self.loop),
        )

    async def start(self, given: Routes | None = None) -> "Proxy":
        starting = asyncio.ensure_future(self.server.start(cast("socket.socket", FakeSocket())))
        await asyncio.sleep(0)
        assert not self.loop.listening
        self.tell(routes(root="/", app="/app") if given is None else given)
        await starting
        return self

    def tell(self, value: Routes) -> None:
        self.link.callbacks[ROUTES_TOPIC](value)

    def connect(self) -> tuple[HttpConnection, Transport]:
        connection, transport = self.loop.connect(), Transport()
        connection.connection_made(transport)
        return connection, transport

    def own(self, path: str) -> Outcome:
        outcome = self.server.own_answer(path)
        assert outcome is not None
        return outcome


class FakeSocket:
    """A listening socket."""

    def setblocking(self, _: bool) -> None:
        pass


async def test_clients_are_accepted_once_the_routes_are_known() -> None:
    proxy = await Proxy().start()
    assert (proxy.loop.listening, proxy.loop.backlog) == (True, BACKLOG)


async def test_who_serves_is_asked_for_before_the_first_request() -> None:
    proxy = await Proxy().start()
    assert set(proxy.routers.made) == {DeploymentID("Ingress", "root"), DeploymentID("Ingress", "app")}


async def test_new_routes_replace_the_old_ones() -> None:
    proxy = await Proxy().start(routes(old="/"))
    connection, _ = proxy.connect()
    connection.data_received(request("/x"))
    assert len(proxy.routers.made[DeploymentID("Ingress", "old")].asked) == 1
    proxy.routers.made[DeploymentID("Ingress", "old")].asked[0].answer(b"")
    proxy.tell(routes(new="/"))
    connection.data_received(request("/x"))
    assert len(proxy.routers.made[DeploymentID("Ingress", "new")].asked) == 1


async def test_other_topics_are_no_routes() -> None:
    proxy = Proxy()
    starting = asyncio.ensure_future(proxy.server.start(cast("socket.socket", FakeSocket())))
    await asyncio.sleep(0)
    proxy.link.callbacks[ROUTES_TOPIC](Status(ServeStatus()))
    await asyncio.sleep(0)
    assert not starting.done()
    starting.cancel()


async def test_the_prefix_of_a_proxy_in_front_is_taken_off() -> None:
    proxy = await Proxy(root_path="/out").start()
    place, _ = proxy.server.places.find(b"/out/app/x")
    assert (place.prefix, place.root_path) == ("/app", "/out/app")


async def test_own_paths_say_how_the_proxy_is() -> None:
    proxy = Proxy()
    assert proxy.own("/-/healthz") == proxy.own("/-/routes") == Outcome(503, b"Route table is not populated yet.")
    await proxy.start()
    assert (proxy.own("/-/healthz").status, proxy.own("/-/healthz").body) == (200, b"success")
    listed = proxy.own("/-/routes")
    assert json.loads(listed.body) == {"/": "root", "/app": "app"}
    assert listed.headers == ((b"content-type", b"application/json"),)
    proxy.server.draining = True
    assert proxy.own("/-/healthz") == proxy.own("/-/routes") == Outcome(503, b"This node is being drained.")
    assert proxy.server.own_answer("/-/other") is None


async def test_every_answer_has_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(server_module, "wall_time_s", lambda: now[0])
    proxy = await Proxy().start()
    connection, transport = proxy.connect()
    for then in ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:02 GMT"):
        transport.writes.clear()
        connection.data_received(request("/-/healthz"))
        assert parsed(transport.written)[0].headers["date"] == then
        now[0] += 2
        proxy.loop.pass_time(1.5)


async def test_the_sweep_ends_what_takes_too_long() -> None:
    proxy = await Proxy(request_timeout_s=5, keep_alive_timeout_s=30).start()
    clients = [proxy.connect() for _ in range(4)]
    clients[0][0].data_received(request("/"))
    clients[1][0].data_received(b"GET / HT")
    clients[2][0].data_received(request("/"))
    proxy.routers.made[DeploymentID("Ingress", "root")].asked[1].answer(b"x")
    proxy.loop.pass_time(5 + SWEEP_PERIOD_S)
    assert parsed(clients[0][1].written)[0].status == 408
    proxy.loop.pass_time(26)
    assert [transport.end for _, transport in clients] == ["", "", "close", "close"]
    proxy.loop.pass_time(60 - 31)
    assert parsed(clients[1][1].written)[0].status == 408
    assert clients[1][1].end == "eof"


async def test_one_timer_is_enough_and_ends_with_the_server() -> None:
    proxy = await Proxy().start()
    for _ in range(3):
        proxy.connect()
    proxy.loop.pass_time(10)
    assert len(proxy.loop.timers) == 1
    proxy.server.close()
    assert proxy.loop.timers[0].cancelled


async def test_a_server_that_never_started_can_be_closed() -> None:
    Proxy().server.close()


async def test_draining_accepts_nobody_new_and_ends_with_the_last_answer() -> None:
    proxy = await Proxy().start()
    (idle, idle_transport), (busy, busy_transport) = proxy.connect(), proxy.connect()
    busy.data_received(request("/"))
    proxy.loop.pass_time(QUIET_S)
    draining = asyncio.ensure_future(proxy.server.drain())
    await asyncio.sleep(0)
    assert (proxy.loop.listening, idle_transport.end, busy_transport.end) == (False, "close", "")
    idle.connection_lost(None)
    await asyncio.sleep(0)
    assert not draining.done()
    proxy.routers.made[DeploymentID("Ingress", "root")].asked[0].answer(b"x")
    assert busy_transport.end == "close"
    busy.connection_lost(None)
    await draining


async def test_draining_without_clients_is_over_at_once() -> None:
    await (await Proxy().start()).server.drain()
    await Proxy().server.drain()
