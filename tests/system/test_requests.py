"""How requests end when they do not end well: deadlines, clients that leave, replicas that die."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.system.serving import Run, get, new_place
from tests.waiting import wait_until_sync

APP = """
    import asyncio, os, pathlib
    import salver as serve
    from fastapi import FastAPI, Request
    from salver.exceptions import RequestTimeoutError
    from starlette.responses import StreamingResponse

    SEEN = pathlib.Path(__file__).parent / "seen"

    def saw(what):
        with SEEN.open("a") as file:
            file.write(what + "\\n")

    @serve.deployment(max_ongoing_requests=20)
    class Child:
        async def hang(self, name):
            saw(f"{name} entered")
            try:
                await asyncio.Event().wait()
            finally:
                saw(f"{name} left")

        async def quick(self): return "quick"

    @serve.deployment(max_ongoing_requests=20, graceful_shutdown_timeout_s=5)
    class Parent:
        def __init__(self, child): self.child = child

        async def __call__(self, request):
            name = request.headers["x-request-id"]
            match request.url.path:
                case "/hang": await asyncio.Event().wait()
                case "/awaited": await self.child.hang.remote(name)
                case "/pending":
                    self.child.hang.remote(name)
                    await asyncio.Event().wait()
                case "/thread": await asyncio.to_thread(lambda: self.child.hang.remote(name).result())
                case "/long":
                    saw(f"{name} entered")
                    await asyncio.sleep(float(request.query_params["s"]))
                    saw(f"{name} left")
                case "/stream":
                    async def chunks():
                        saw(f"{name} entered")
                        for _ in range(64):
                            yield b"x" * 100_000
                        saw(f"{name} left")
                    return StreamingResponse(chunks())
                case "/exit": os._exit(3)
                case "/exit-once":
                    if name not in SEEN.read_text():
                        saw(name)
                        os._exit(3)
            return await self.child.quick.remote()

    @serve.deployment(
        max_ongoing_requests=1, max_queued_requests=1, backpressure_config={"retry_after_s": 1.5},
    )
    class Full:
        async def __call__(self, request): await asyncio.Event().wait()

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=2)
    @serve.ingress(api)
    class Api:
        def __init__(self, child): self.child = child

        @api.get("/blocked")
        def blocked(self, request: Request):
            self.child.hang.remote(request.headers["x-request-id"]).result()

        @api.get("/pending")
        async def pending(self, request: Request):
            self.child.hang.remote(request.headers["x-request-id"])
            await asyncio.Event().wait()

        @api.get("/late")
        async def late(self): raise RequestTimeoutError("given")

    app = Parent.bind(Child.bind())
    fast = Api.bind(Child.bind())
    full = Full.bind()
"""


class Scene(NamedTuple):
    """A run, where it listens, and the directory of its application."""

    run: Run
    url: str
    path: Path

    def seen(self) -> list[str]:
        """Return what the handlers noted."""
        return (self.path / "seen").read_text().splitlines()

    def wait_for(self, what: str) -> None:
        """Wait until a handler noted something."""
        wait_until_sync(lambda: what in self.seen(), within_s=10, what=what)

    def leave(self, path: str, request_id: str, *headers: str) -> None:
        """Ask, and close the connection once the handler has begun."""
        parts = urlsplit(self.url)
        lines = [f"GET {path} HTTP/1.1", "host: x", f"x-request-id: {request_id}", *headers, "", ""]
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall("\r\n".join(lines).encode())
            self.wait_for(f"{request_id} entered")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One run for all tests of this module, which tell each other's requests by their ids."""
    path: Path = tmp_path_factory.mktemp("requests")
    with new_place(path) as place:
        place.write("ends.py", APP)
        place.write("seen", "")
        with place.run("ends:app") as each:
            yield Scene(each, each.url(), path)


def test_a_request_ends_near_the_time_that_its_header_gives(scene: Scene) -> None:
    began = time.monotonic()
    response = get(scene.url + "/hang", headers={"x-request-timeout-seconds": "0.1", "x-request-id": "quick-end"})
    took_s = time.monotonic() - began
    assert (response.status_code, response.text) == (408, "Request quick-end timed out after 0.1s.")
    assert response.headers["x-request-id"] == "quick-end"
    assert 0.1 <= took_s < 2


@pytest.mark.parametrize("path", ["/awaited", "/pending", "/thread"])
def test_a_deadline_reaches_the_calls_of_a_request(scene: Scene, path: str) -> None:
    name = f"deadline{path}"
    response = get(scene.url + path, headers={"x-request-timeout-seconds": "0.3", "x-request-id": name})
    assert response.status_code == 408
    scene.wait_for(f"{name} left")


@pytest.mark.parametrize("path", ["/awaited", "/pending", "/thread"])
def test_a_client_that_leaves_cancels_the_calls_of_its_request(scene: Scene, path: str) -> None:
    name = f"left{path}"
    scene.leave(path, name)
    scene.wait_for(f"{name} left")


def test_cancelled_requests_are_no_errors_in_the_log(scene: Scene) -> None:
    for path in ("/awaited", "/pending", "/thread"):
        scene.leave(path, f"silent{path}")
        scene.wait_for(f"silent{path} left")
        get(scene.url + path, headers={"x-request-timeout-seconds": "0.05", "x-request-id": f"silent-late{path}"})
    assert get(scene.url + "/", headers={"x-request-id": "after"}).text == "quick"
    assert "silent" not in scene.run.output


def test_a_request_may_go_on_when_its_client_has_left(scene: Scene) -> None:
    scene.leave("/long?s=0.3", "stays", "x-request-disconnect-disabled: ?1")
    scene.wait_for("stays left")


def test_a_stream_may_go_on_when_its_client_has_left(scene: Scene) -> None:
    scene.leave("/stream", "streams", "x-request-disconnect-disabled: ?1")
    scene.wait_for("streams left")


def test_a_request_that_went_on_ends_at_its_deadline(scene: Scene) -> None:
    scene.leave("/awaited", "bounded", "x-request-disconnect-disabled: ?1", "x-request-timeout-seconds: 0.4")
    scene.wait_for("bounded left")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/hang", {"x-request-timeout-seconds": "0.05"}, 408),
        ("POST", "/exit", {}, 502),
        ("GET", "/exit", {}, 502),
    ],
    ids=["timed out", "replica died", "three replicas died"],
)
def test_answers_of_the_system_have_the_request_id(
    scene: Scene, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    name = f"id-{method}-{path[1:]}"
    response = httpx.request(method, scene.url + path, headers={"x-request-id": name, **headers}, timeout=30)
    assert (response.status_code, response.headers["x-request-id"]) == (status, name)
    assert name in response.text


def test_a_request_that_may_be_repeated_survives_its_replica(scene: Scene) -> None:
    response = get(scene.url + "/exit-once", headers={"x-request-id": "once"})
    assert (response.status_code, response.text) == (200, "quick")


def test_a_full_application_says_when_to_come_again(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write("ends.py", APP)
        with place.run("ends:full") as run:
            parts = urlsplit(run.url())
            with ExitStack() as clients:
                for _ in range(2):
                    client = clients.enter_context(socket.create_connection((parts.hostname, parts.port)))
                    client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

                def refused() -> httpx.Response | None:
                    try:
                        return httpx.get(run.url(), headers={"x-request-id": "full"}, timeout=0.5)
                    except httpx.TimeoutException:
                        return None

                response = wait_until_sync(refused, within_s=10, what="a refusal")
            assert response is not None
            assert (response.status_code, response.headers["retry-after"]) == (503, "2")
            assert response.headers["x-request-id"] == "full"
            assert "Request dropped due to backpressure" in response.text


def test_a_run_that_ends_waits_for_requests_that_went_on(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write("ends.py", APP)
        place.write("seen", "")
        with place.run("ends:app") as run:
            scene = Scene(run, run.url(), tmp_path)
            scene.leave("/long?s=0.7", "last", "x-request-disconnect-disabled: ?1")
            run.signal(signal.SIGINT)
            run.exit_code()
            assert "last left" in scene.seen()


def test_endpoints_of_fastapi_are_cancelled_with_their_calls(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write("ends.py", APP)
        place.write("seen", "")
        with place.run("ends:fast") as run:
            scene = Scene(run, run.url(), tmp_path)
            for number in range(3):
                for path in ("/blocked", "/pending"):
                    scene.leave(path, f"{number}{path}")
                    scene.wait_for(f"{number}{path} left")
            assert get(scene.url + "/late").status_code == 408
