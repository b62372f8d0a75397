"""Bodies of any size, through a real run."""

import contextlib
import hashlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.system.serving import Run, new_place
from tests.waiting import wait_until_sync

APP = """
    import asyncio, hashlib
    import salver as serve
    from fastapi import FastAPI, Request, UploadFile
    from fastapi.responses import StreamingResponse

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=20)
    @serve.ingress(api)
    class Uploads:
        def __init__(self):
            self.sizes = []

        @api.post("/digest")
        async def digest(self, request: Request):
            sha, size = hashlib.sha256(), 0
            async for piece in request.stream():
                sha.update(piece)
                size += len(piece)
            return {"size": size, "sha256": sha.hexdigest()}

        @api.post("/form")
        async def form(self, file: UploadFile, note: str = ""):
            return {"name": file.filename, "size": len(await file.read()), "note": note}

        @api.post("/echo")
        async def echo(self, request: Request):
            async def pieces():
                async for piece in request.stream():
                    yield piece
            return StreamingResponse(pieces())

        @api.post("/early")
        async def early(self):
            return "not wanted"

        @api.post("/never")
        async def never(self, request: Request):
            self.sizes.append(1)
            try:
                await asyncio.Event().wait()
            finally:
                self.sizes.pop()

        @api.get("/running")
        async def running(self):
            return len(self.sizes)

    app = Uploads.bind()
"""
PIECE = bytes(range(256)) * 1024
GROWTH_SIZE_BYTES = 48 * 1024 * 1024


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    path: Path = tmp_path_factory.mktemp("uploads")
    with new_place(path) as place:
        place.write("uploads.py", APP)
        with place.run("uploads:app") as each:
            each.url()
            yield each


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def memory(run: Run) -> dict[str, int]:
    return {f"{each.name()} {each.pid}": each.memory_info().rss for each in run.family()}


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with a length"])
def test_a_large_body_is_nowhere_in_memory(run: Run, chunked: bool) -> None:
    count = 1024
    headers = {} if chunked else {"content-length": str(count * len(PIECE))}
    httpx.post(run.url() + "/digest", content=pieces(8), timeout=30)
    before = memory(run)
    highest = dict(before)

    def watched() -> Iterator[bytes]:
        for number, piece in enumerate(pieces(count)):
            if number % 64 == 0:
                for name, size in memory(run).items():
                    highest[name] = max(highest.get(name, 0), size)
            yield piece

    answer = httpx.post(run.url() + "/digest", content=watched(), headers=headers, timeout=60).json()
    assert answer["size"] == count * len(PIECE)
    assert answer["sha256"] == hashlib.sha256(PIECE * count).hexdigest()
    grown = {name: highest[name] - before[name] for name in before if highest[name] - before[name] > GROWTH_SIZE_BYTES}
    assert not grown


def test_a_form_with_a_file(run: Run) -> None:
    answer = httpx.post(
        run.url() + "/form", params={"note": "n"}, files={"file": ("data.bin", PIECE * 20, "application/octet-stream")}
    )
    assert answer.json() == {"name": "data.bin", "size": 20 * len(PIECE), "note": "n"}


def test_a_body_can_be_answered_while_it_comes(run: Run) -> None:
    url = urlsplit(run.url())
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        seen = b""
        while b"hello" not in seen:
            seen += client.recv(65536)
        client.sendall(b"5\r\nworld\r\n0\r\n\r\n")
        while not seen.endswith(b"0\r\n\r\n"):
            seen += client.recv(65536)
    assert b"world" in seen


def test_an_answer_before_the_end_of_the_body_arrives(run: Run) -> None:
    url = urlsplit(run.url())
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100)
        seen = b""
        while piece := client.recv(65536):
            seen += piece
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in seen


def test_a_handler_that_does_not_read_stops_its_client_and_nobody_else(run: Run) -> None:
    url = urlsplit(run.url())
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as client:
        client.sendall(b"POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 512 * 1024 * 1024:
                client.sendall(b"10000\r\n%b\r\n" % (b"x" * 65536))
                sent += 65536
        assert sent < 128 * 1024 * 1024
        assert httpx.get(run.url() + "/running").json() == 1
        # A polite end would have to wait behind what nobody reads.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    proxy = next(each for each in run.family() if each.name().startswith("proxy"))
    assert proxy.memory_info().rss < 256 * 1024 * 1024
    gone = lambda: httpx.get(run.url() + "/running").json() == 0  # noqa: E731
    wait_until_sync(gone, within_s=10, what="the end of the handler whose client left")
