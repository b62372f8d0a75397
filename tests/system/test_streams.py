"""Answers that come in pieces: when each arrives, and what becomes of generators whose client leaves."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.serving import Run, new_place
from tests.waiting import wait_until_sync

APP = """
    import asyncio, threading
    import salver as serve
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=20)
    @serve.ingress(api)
    class Streams:
        def __init__(self):
            self.go_on = threading.Event()
            self.pieces = 0
            self.ends = []

        @api.get("/{kind}")
        async def stream(self, kind: str):
            generator = {"async": self.later, "sync": self.now, "endless-async": self.endless_later,
                         "endless-sync": self.endless_now}[kind]
            return StreamingResponse(generator(), media_type="text/event-stream")

        async def later(self):
            yield "data: first\\n\\n"
            while not self.go_on.is_set():
                await asyncio.sleep(0.001)
            yield "data: last\\n\\n"

        def now(self):
            yield "data: first\\n\\n"
            self.go_on.wait(20)
            yield "data: last\\n\\n"

        async def endless_later(self):
            try:
                while True:
                    self.pieces += 1
                    yield "data: more\\n\\n"
                    await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                self.ends.append("cancelled")
                raise

        def endless_now(self):
            try:
                while True:
                    self.pieces += 1
                    yield "data: more\\n\\n"
            finally:
                self.ends.append("closed")

        @api.post("/go-on")
        async def let_go_on(self):
            self.go_on.set()

        @api.post("/seen")
        async def seen(self):
            return [self.pieces, self.ends]

    app = Streams.bind()
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with new_place(tmp_path) as place:
        place.write("streams.py", APP)
        with place.run("streams:app") as each:
            each.url()
            yield each


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_first_piece_arrives_while_the_generator_waits(run: Run, kind: str) -> None:
    with httpx.stream("GET", f"{run.url()}/{kind}", timeout=20) as answer:
        pieces = answer.iter_text()
        assert next(pieces) == "data: first\n\n"
        httpx.post(run.url() + "/go-on")
        assert "".join(pieces) == "data: last\n\n"
        assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(("kind", "end"), [("endless-async", ["cancelled"]), ("endless-sync", ["closed"])])
def test_a_generator_ends_when_its_client_leaves(run: Run, kind: str, end: list[str]) -> None:
    with httpx.stream("GET", f"{run.url()}/{kind}", timeout=20) as answer:
        assert next(answer.iter_text())

    def ended() -> bool:
        return bool(httpx.post(run.url() + "/seen").json()[1] == end)

    wait_until_sync(ended, within_s=15, what="the generator's end")
    pieces = httpx.post(run.url() + "/seen").json()[0]
    assert httpx.post(run.url() + "/seen").json()[0] == pieces
