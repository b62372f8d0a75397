"""Local testing mode: what is special about it. What it has in common with processes is in tests/contract."""

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse

import salver as serve
from salver.api.driver import find_driver
from salver.exceptions import RemoteError, ReplicaDiedError, SalverError
from salver.testing import http_app, local_app
from tests.waiting import wait_until, wait_until_sync

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that another library than httpx is to be used one day
    from starlette.testclient import TestClient, WebSocketDenialResponse
    from starlette.websockets import WebSocketDisconnect


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    serve.shutdown()
    wait_until_sync(lambda: set(threading.enumerate()) <= before, within_s=10, what="no thread of ours")


@serve.deployment
class Echo:
    async def __call__(self, value: Any) -> Any:
        return value


# ── running ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keyword", ["local_testing_mode", "_local_testing_mode"])
def test_run_takes_the_mode_as_a_keyword(keyword: str) -> None:
    options: dict[str, Any] = {keyword: True}
    assert serve.run(Echo.bind(), **options).remote(1).result() == 1


def test_the_environment_asks_for_the_mode_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_LOCAL_TESTING_MODE", "1")
    serve.start()
    assert serve.run(Echo.bind()).remote(1).result() == 1
    assert threading.active_count() > 2


async def test_it_runs_where_a_loop_runs() -> None:
    handle = serve.run(Echo.bind(), local_testing_mode=True)
    assert await asyncio.gather(*[handle.remote(each) for each in range(10)]) == list(range(10))


def test_code_is_used_as_it_is_so_that_tests_see_what_it_does() -> None:
    seen, lock = [], threading.Lock()

    @serve.deployment
    class Spied:
        def __call__(self, value: int) -> None:
            with lock:
                seen.append(value)

    with local_app(Spied.bind()) as handle:
        handle.remote(3).result()
    assert seen == [3]


def test_an_argument_of_bind_is_a_copy() -> None:
    given: list[int] = []

    @serve.deployment
    class Keeps:
        def __init__(self, values: list[int]) -> None:
            values.append(1)

        def __call__(self) -> None:
            return None

    with local_app(Keeps.bind(given)):
        assert given == []


class OwnError(Exception):
    """Raised by a constructor."""


def test_what_a_constructor_raises_is_raised_by_run_as_it_is() -> None:
    error = OwnError("no weights")

    @serve.deployment
    class Broken:
        def __init__(self) -> None:
            raise error

    @serve.deployment
    class Whole:
        def __init__(self, broken: Any) -> None:
            self.broken = broken

    with pytest.raises(OwnError) as caught:
        serve.run(Whole.bind(Broken.bind()), local_testing_mode=True)
    assert caught.value is error
    assert not isinstance(caught.value, RemoteError)
    assert serve.status().applications["default"].status == "DEPLOY_FAILED"


def test_a_constructor_that_exits_fails_the_run_and_not_the_test() -> None:
    @serve.deployment
    class Exits:
        def __init__(self) -> None:
            raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        serve.run(Exits.bind(), local_testing_mode=True)


def test_what_a_replica_needs_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    needy = Echo.options(ray_actor_options={"num_gpus": 8, "runtime_env": {"env_vars": {"A": "1"}}})
    with local_app(needy.bind()) as handle:
        assert handle.remote(1).result() == 1
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warned) == 1
    assert "ray_actor_options (runtime_env, num_gpus and the like) of Echo are ignored" in warned[0]


def test_finalizers_run_when_an_application_ends() -> None:
    ended = []

    @serve.deployment(num_replicas=3)
    class Ends:
        async def __del__(self) -> None:
            ended.append(serve.get_replica_context().replica_tag)

        def __call__(self) -> None:
            return None

    with local_app(Ends.bind()):
        assert ended == []
    assert len(set(ended)) == 3


def test_one_process_runs_applications_in_one_way_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    serve.run(Echo.bind(), local_testing_mode=True)
    with pytest.raises(SalverError, match=r"inside this process already, .* in processes; .* serve.shutdown\(\) first"):
        serve.run(Echo.bind())


def test_a_handler_that_holds_its_loop_does_not_stop_other_deployments() -> None:
    release = threading.Event()

    @serve.deployment(graceful_shutdown_timeout_s=0)
    class Holds:
        def __init__(self, echo: serve.DeploymentHandle[Any]) -> None:
            self.echo = echo

        async def __call__(self) -> bool:
            return release.wait(20)

        def outside(self) -> Any:
            return self.echo.remote("free").result()

    with local_app(Holds.bind(Echo.bind())) as handle:
        held = handle.remote()
        assert serve.get_deployment_handle("Echo", "default").remote(1).result() == 1
        release.set()
        assert held.result() is True
        assert handle.outside.remote().result() == "free"


def test_shutdown_while_a_handler_never_ends_tells_the_caller() -> None:
    begun, release = threading.Event(), threading.Event()

    @serve.deployment(graceful_shutdown_timeout_s=0)
    class Stuck:
        def __call__(self) -> None:
            begun.set()
            release.wait(20)

    response = serve.run(Stuck.bind(), local_testing_mode=True).remote()
    assert begun.wait(10)
    serve.shutdown()
    with pytest.raises(ReplicaDiedError):
        response.result(timeout_s=10)
    release.set()


# ── local_app ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_application_lives_as_long_as_its_block_and_blocks_may_lie_in_one_another() -> None:
    with local_app(Echo.bind()) as outer:
        with local_app(Echo.bind(), name="inner", route_prefix="/inner") as inner:
            assert (outer.remote(1).result(), inner.remote(2).result()) == (1, 2)
            assert set(serve.status().applications) == {"default", "inner"}
        assert set(serve.status().applications) == {"default"}
        assert outer.remote(3).result() == 3
    assert find_driver() is None


def test_a_block_whose_application_fails_leaves_nothing() -> None:
    @serve.deployment
    class Broken:
        def __init__(self) -> None:
            raise OwnError

    with pytest.raises(OwnError), local_app(Broken.bind()):
        pass
    assert find_driver() is None


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def echo_all(socket: WebSocket) -> str:
    """Send back what comes; return why it ends."""
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        if message.get("text") == "close":
            await socket.close(4000, "as asked")
            return "closed"
        await socket.send({**message, "type": "websocket.send"})
    return f"left with {message['code']}"


async def without_end(ended: list[str]) -> AsyncIterator[bytes]:
    """Yield for ever."""
    try:
        while True:
            yield bytes(100_000)
            await asyncio.sleep(0)
    finally:
        ended.append("stream")


def an_api() -> tuple[Any, list[str]]:
    """Return an application of FastAPI that is made in a function, as tests make them, and what has ended in it."""
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        ended.append(serve.get_replica_context().deployment)

    api = FastAPI(lifespan=lifespan)

    @serve.deployment(num_replicas=2, max_ongoing_requests=20)
    @serve.ingress(api)
    class Api:
        def __init__(self) -> None:
            self.tag = serve.get_replica_context().replica_tag

        @api.get("/who")
        async def who(self) -> list[str]:
            return [self.tag, serve.get_replica_context().replica_tag]

        @api.websocket("/echo")
        async def echo(self, socket: WebSocket) -> None:
            await socket.accept(subprotocol="talk", headers=[(b"x-own", b"1")])
            ended.append(await echo_all(socket))

        @api.websocket("/deny")
        async def deny(self, socket: WebSocket) -> None:
            await socket.close()

        @api.get("/endless")
        async def endless(self) -> StreamingResponse:
            return StreamingResponse(without_end(ended))

    return Api.bind(), ended


def test_each_replica_serves_its_own_instance_although_they_share_one_application() -> None:
    app, ended = an_api()
    with local_app(app, route_prefix="/api"):
        client = TestClient(http_app())
        told = [client.get("/api/who").json() for _ in range(30)]
    assert all(own == context for own, context in told)
    assert len({own for own, _ in told}) == 2
    assert ended == ["Api", "Api"], "the application's lifespan ends with each replica"


def test_a_websocket_talks_both_ways() -> None:
    app, ended = an_api()
    with local_app(app):
        client = TestClient(http_app())
        with client.websocket_connect("/echo", subprotocols=["talk"]) as socket:
            assert socket.accepted_subprotocol == "talk"
            assert socket.extra_headers is not None
            assert (b"x-own", b"1") in socket.extra_headers
            socket.send_text("grüße")
            assert socket.receive_text() == "grüße"
            socket.send_bytes(bytes(3_000_000))
            assert len(socket.receive_bytes()) == 3_000_000
            socket.send_text("close")
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
        assert (closed.value.code, closed.value.reason) == (4000, "as asked")
        with client.websocket_connect("/echo"):
            pass
        wait_until_sync(lambda: "left with 1000" in ended, within_s=10, what="the end of the other")


def test_a_websocket_that_is_refused_says_why() -> None:
    app, _ = an_api()
    with local_app(app, route_prefix="/api"):
        client = TestClient(http_app())
        for path, status in (("/api/deny", 403), ("/nowhere", 404)):
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path):
                pass
            assert denied.value.status_code == status


def test_a_clients_lifespan_is_its_own() -> None:
    app, _ = an_api()
    with local_app(app), TestClient(http_app()) as client:
        assert client.get("/who").status_code == 200


async def test_a_client_that_leaves_cancels_its_request() -> None:
    app, ended = an_api()
    with local_app(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(http_app()), base_url="http://here") as client:
            asked = asyncio.get_running_loop().create_task(client.get("/endless"))
            await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        await wait_until(lambda: "stream" in ended, within_s=10, what="the end of the stream")


async def test_who_reads_slowly_holds_up_the_stream() -> None:
    app, _ = an_api()
    sent = 0
    enough = asyncio.Event()

    async def receive() -> Any:
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if sent > 300_000:
            enough.set()
            await asyncio.Event().wait()

    first = [{"type": "http.request"}]

    async def request() -> Any:
        return first.pop() if first else await receive()

    with local_app(app):
        scope = {"type": "http", "method": "GET", "path": "/endless", "query_string": b"", "headers": []}
        asked = asyncio.ensure_future(http_app()(scope, request, send))
        await asyncio.wait_for(enough.wait(), 10)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    assert sent < 10_000_000


def test_the_proxys_options_hold() -> None:
    @serve.deployment
    class Waits:
        async def __call__(self, request: Any) -> str:
            if "wait" in request.query_params:
                await asyncio.Event().wait()
            return str(request.scope["root_path"])

    options = {"root_path": "/outer", "request_timeout_s": 0.1, "max_request_body_bytes": 10}
    with local_app(Waits.bind(), route_prefix="/inner", http_options=options):
        client = TestClient(http_app())
        assert client.get("/outer/inner").text == "/outer/inner"
        assert client.get("/inner?wait=1").status_code == 408
        assert client.post("/inner", content=b"longer than ten").status_code == 413


def test_http_without_an_application_says_what_to_do() -> None:
    with pytest.raises(SalverError, match=r"serve\.run\(app, local_testing_mode=True\)"):
        TestClient(http_app()).get("/")
