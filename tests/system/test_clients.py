"""The HTTP clients that people use, against a real run: what they send arrives, and what they get is right."""

import asyncio
import http.client
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
import requests
import urllib3

from tests.system.client_app import APP
from tests.system.serving import new_place

SIZE = 3_000_000
TIMEOUT_S = 20


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One run for all tests of this module; none of them may disturb it."""
    with new_place(tmp_path_factory.mktemp("clients")) as place:
        place.write("client_app.py", APP)
        with place.run("client_app:app", "--route-prefix", "/api") as run:
            yield run.url()


# httpx


def test_httpx(url: str) -> None:
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        assert client.get("/hello?q=ü").json() == "hello ü"
        assert client.post("/json", json={"x": 2}).json() == {"y": 4}
        assert client.post("/json", json={"x": "no"}).status_code == 422
        upload = client.post("/upload", files={"file": ("a.bin", b"\0" * SIZE)}, data={"name": "n"})
        assert upload.json() == {"name": "n", "size": SIZE}
        assert client.post("/size", content=iter([b"x" * 1000] * 1000)).json() == 1_000_000
        with client.stream("GET", f"/stream?size={SIZE}") as response:
            assert sum(map(len, response.iter_bytes())) == SIZE
        with client.stream("GET", "/events") as response:
            assert [line for line in response.iter_lines() if line] == ["data: 0", "data: 1", "data: 2"]
        assert client.head("/hello?q=x").headers["content-length"] == "9"


def test_httpx_follows_a_slash_that_was_forgotten(url: str) -> None:
    response = httpx.get(url + "/folder", follow_redirects=True)
    assert (response.status_code, [each.status_code for each in response.history]) == (200, [307])
    assert response.url.path == "/api/folder/"


async def test_httpx_many_at_once(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        answers = await asyncio.gather(*[client.get("/hello", params={"q": number}) for number in range(200)])
    assert [answer.json() for answer in answers] == [f"hello {number}" for number in range(200)]


# requests and urllib3


def test_requests(url: str) -> None:
    with requests.Session() as session:
        assert session.get(url + "/hello", params={"q": "x"}, timeout=TIMEOUT_S).json() == "hello x"
        assert session.post(url + "/json", json={"x": 2}, timeout=TIMEOUT_S).json() == {"y": 4}
        files = {"file": ("a.bin", b"\0" * SIZE)}
        upload = session.post(url + "/upload", files=files, data={"name": "n"}, timeout=TIMEOUT_S)
        assert upload.json() == {"name": "n", "size": SIZE}
        chunks = session.post(url + "/size", data=iter([b"x" * 1000] * 100), timeout=TIMEOUT_S)
        assert chunks.json() == 100_000
        with session.get(f"{url}/stream?size={SIZE}", stream=True, timeout=TIMEOUT_S) as response:
            assert sum(map(len, response.iter_content(None))) == SIZE
        slash = session.get(url + "/folder", timeout=TIMEOUT_S)
        assert (slash.status_code, [each.status_code for each in slash.history]) == (200, [307])


def test_urllib3_uses_one_connection(url: str) -> None:
    with urllib3.HTTPConnectionPool(urlsplit(url).hostname or "", urlsplit(url).port, maxsize=1) as pool:
        for number in range(20):
            response = pool.request("GET", f"/api/hello?q={number}", timeout=TIMEOUT_S)
            assert json.loads(response.data) == f"hello {number}"
        assert pool.num_connections == 1


def test_http_client(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    for number in range(3):
        connection.request("PUT", "/api/size", body=iter([b"x"] * number), encode_chunked=True)
        assert json.loads(connection.getresponse().read()) == number
    connection.close()


# aiohttp


async def test_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
        async with session.get(url + "/hello?q=x") as response:
            assert await response.json() == "hello x"
        async with session.post(url + "/json", json={"x": 2}) as response:
            assert await response.json() == {"y": 4}
        form = aiohttp.FormData({"name": "n"})
        form.add_field("file", io.BytesIO(b"\0" * SIZE), filename="a.bin")
        async with session.post(url + "/upload", data=form) as response:
            assert await response.json() == {"name": "n", "size": SIZE}
        async with session.post(url + "/size", data=io.BytesIO(b"x" * SIZE), expect100=True) as response:
            assert await response.json() == SIZE
        async with session.get(f"{url}/stream?size={SIZE}") as response:
            assert sum([len(chunk) async for chunk in response.content.iter_any()]) == SIZE
        async with session.get(url + "/folder") as response:
            assert (response.status, len(response.history)) == (200, 1)


# curl, wrk and h2load; `scripts/test` sees to it that they are there


def tool(*command: str) -> str:
    """Run a command line tool; return what it prints."""
    assert shutil.which(command[0]), f"{command[0]} is not installed; scripts/test installs it"
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curl(*arguments: str) -> str:
    """Run curl."""
    return tool("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(TIMEOUT_S), *arguments)


def test_curl(url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\0" * SIZE)
    assert curl(url + "/hello?q=x") == '"hello x"'
    assert curl("-H", "content-type: application/json", "-d", '{"x": 2}', url + "/json") == '{"y":4}'
    assert json.loads(curl("-F", f"file=@{file}", "-F", "name=n", url + "/upload")) == {"name": "n", "size": SIZE}
    assert curl("-T", str(file), url + "/size") == str(SIZE)  # waits for 100 Continue
    assert curl("-T", str(file), "-H", "Transfer-Encoding: chunked", url + "/size") == str(SIZE)
    assert len(curl(f"{url}/stream?size={SIZE}")) == SIZE
    assert curl("-0", f"{url}/stream?size=1000") == "x" * 1000
    assert curl("-N", url + "/events") == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert curl("-L", url + "/folder") == '"folder"'
    assert curl("--head", url + "/hello?q=x").startswith("HTTP/1.1 200 OK")


def test_curl_uses_a_connection_again(url: str) -> None:
    connects = curl("-w", " %{num_connects} ", url + "/hello?q=x", url + "/hello?q=y")
    assert connects.split() == ['"hello', 'x"', "1", '"hello', 'y"', "0"]


def test_curl_asks_for_http2_and_is_answered_in_http1(url: str) -> None:
    assert curl("--http2", "-w", " %{http_version}", url + "/hello?q=x") == '"hello x" 1.1'


def test_curl_asks_for_http2_with_a_body_and_is_answered_in_http1(url: str) -> None:
    assert curl("--http2", "-d", "abc", url + "/size") == "3"


def test_wrk_and_h2load_see_no_error(url: str) -> None:
    printed = tool("wrk", "-t1", "-c32", "-d1s", url + "/hello?q=x")
    assert "Requests/sec" in printed
    assert "Non-2xx" not in printed
    assert "Socket errors" not in printed
    printed = tool("h2load", "--h1", "-n2000", "-c16", "-m4", url + "/hello?q=x")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in printed
    printed = tool("h2load", "-n2000", "-c4", "-m32", url + "/hello?q=x")
    assert "Application protocol: h2c" in printed
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in printed


def test_curl_in_http2(url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\0" * SIZE)
    h2 = "--http2-prior-knowledge"
    assert curl(h2, "-w", " %{http_version}", url + "/hello?q=x") == '"hello x" 2'
    assert curl(h2, "-T", str(file), url + "/size") == str(SIZE)
    assert len(curl(h2, f"{url}/stream?size={SIZE}")) == SIZE
    assert json.loads(curl(h2, "-F", f"file=@{file}", "-F", "name=n", url + "/upload")) == {"name": "n", "size": SIZE}
