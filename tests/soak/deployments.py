"""What is cancelled: handlers that hang in every way, and count who is in them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

import salver as serve

NUM_LEAF_SLOTS = 100
NUM_FRONT_SLOTS = 32
NUM_THREAD_SLOTS = 16
NUM_TALK_SLOTS = 16


class Counting:
    """Counts who is inside, and lets some meet there."""

    def __init__(self) -> None:
        self.inside = 0
        self.entered = 0
        self.meeting: list[asyncio.Event] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one who is inside."""
        self.inside += 1
        self.entered += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def meet(self, size: int) -> bool:
        """Return when so many are here at once."""
        with self.counted():
            arrived = asyncio.Event()
            self.meeting.append(arrived)
            if len(self.meeting) == size:
                for each in self.meeting:
                    each.set()
                self.meeting.clear()
            await arrived.wait()
            return True

    async def counts(self) -> tuple[int, int]:
        """Return how many are inside, and how many ever were."""
        return self.inside, self.entered


# One more slot than is used: somebody must be able to ask for the counts.
@serve.deployment(max_ongoing_requests=NUM_LEAF_SLOTS + 1, graceful_shutdown_timeout_s=0)
class Leaf(Counting):
    async def hang(self) -> None:
        """Never return."""
        with self.counted():
            await asyncio.Event().wait()


@serve.deployment(max_ongoing_requests=NUM_THREAD_SLOTS + 1, graceful_shutdown_timeout_s=0)
class Threads(Counting):
    def __init__(self, leaf: serve.DeploymentHandle[Any]) -> None:
        super().__init__()
        self.leaf = leaf

    def block(self) -> None:
        """Block a thread until the call is cancelled."""
        with self.counted():
            self.leaf.hang.remote().result()


@serve.deployment(max_ongoing_requests=NUM_FRONT_SLOTS, max_queued_requests=-1, graceful_shutdown_timeout_s=0)
class Front(Counting):
    def __init__(self, leaf: serve.DeploymentHandle[Any], threads: serve.DeploymentHandle[Any]) -> None:
        super().__init__()
        self.leaf = leaf
        self.threads = threads

    async def __call__(self, request: Request) -> Any:
        """Do what is asked for, which is mostly to hang."""
        what = request.query_params.get("do", "hang")
        if what == "stream":
            return StreamingResponse(self.stream())
        return await getattr(self, what)()

    async def hang(self) -> None:
        """Never return."""
        with self.counted():
            await asyncio.Event().wait()

    async def stream(self) -> AsyncIterator[bytes]:
        """Never end."""
        with self.counted():
            while True:
                yield b"x" * 100
                await asyncio.sleep(0.001)

    async def child(self) -> None:
        """Await a call that hangs."""
        with self.counted():
            await self.leaf.hang.remote()

    async def children(self) -> None:
        """Make calls that hang, and await none."""
        with self.counted():
            calls = [self.leaf.hang.remote() for _ in range(2)]
            await asyncio.Event().wait()
            del calls

    async def thread(self) -> None:
        """Call what blocks a thread on a call that hangs."""
        with self.counted():
            await self.threads.block.remote()

    async def meet_here(self) -> Response:
        """Meet all that can be here."""
        await self.meet(NUM_FRONT_SLOTS)
        return Response(b"met")

    async def meet_leaves(self) -> Response:
        """Use all slots of the leaf."""
        await asyncio.gather(*[self.leaf.meet.remote(NUM_LEAF_SLOTS) for _ in range(NUM_LEAF_SLOTS)])
        return Response(b"met")

    async def all_counts(self) -> list[tuple[int, int]]:
        """Return the counts of all deployments."""
        return [await self.counts(), await self.leaf.counts.remote(), await self.threads.counts.remote()]


talk_api = FastAPI()


@serve.deployment(max_ongoing_requests=NUM_TALK_SLOTS + 1, graceful_shutdown_timeout_s=0)
@serve.ingress(talk_api)
class Talk(Counting):
    @talk_api.websocket("/")
    async def talk(self, socket: WebSocket) -> None:
        """Send back what comes, until the client leaves."""
        with self.counted():
            await socket.accept()
            with suppress(WebSocketDisconnect):
                while True:
                    await socket.send_text(await socket.receive_text())


talk_app = Talk.bind()  # type: ignore[attr-defined]
leaf = Leaf.bind()  # type: ignore[attr-defined]
app = Front.bind(leaf, Threads.bind(leaf))  # type: ignore[attr-defined]
