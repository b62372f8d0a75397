"""HTTP/2 with real clients."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.system.serving import Place, Run, new_place

APP = """
    import salver as serve
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(api)
    class App:
        @api.get("/version")
        async def version(self, request: Request):
            return request.scope["http_version"]

        @api.post("/length")
        async def length(self, request: Request):
            return len(await request.body())

        @api.get("/stream")
        async def stream(self):
            return StreamingResponse(("x" * 100_000 for _ in range(100)), media_type="text/plain")

    app = App.bind()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    path: Path = tmp_path_factory.mktemp("http2")
    with new_place(path) as place:
        place.write("app.py", APP)
        with place.run("app:app") as each:
            each.url()
            yield each


@pytest.fixture
def client(run: Run) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=run.url(), http1=False, http2=True, timeout=20) as each:
        yield each


def test_httpx_speaks_it(client: httpx.Client) -> None:
    answer = client.get("/version")
    assert (answer.http_version, answer.json()) == ("HTTP/2", "2")


def test_large_bodies_go_both_ways(client: httpx.Client) -> None:
    assert client.post("/length", content=b"x" * 5_000_000).json() == 5_000_000
    assert len(client.get("/stream").content) == 100 * 100_000


def test_a_missing_path_is_not_found(client: httpx.Client) -> None:
    assert client.get("/nowhere").status_code == 404


def test_curl_speaks_it(run: Run) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "the tests need curl"
    command = [curl, "-s", "--http2-prior-knowledge", "-d", "a=b", run.url() + "/length", "-w", "%{http_version}"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert answer.stdout == "32"


def test_over_tls_for_clients_that_speak_nothing_else(place: Place, tmp_path: Path) -> None:
    place.write("app.py", APP)
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    with place.run("app:app", "--http", f"ssl_certfile={pair.cert}", "--http", f"ssl_keyfile={pair.key}") as run:
        url = run.url()
        for http1, version in ((False, "2"), (True, "1.1")):
            with httpx.Client(verify=authority.client(), http1=http1, http2=True) as client:
                assert client.get(url + "/version").json() == version
