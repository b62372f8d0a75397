"""One application with a bit of everything, for `bench.soak`."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import salver as serve

api = FastAPI()


class Item(BaseModel):
    name: str
    values: list[float]


@serve.deployment(max_ongoing_requests=200)
class Scorer:
    """What the front calls: plain and async methods, small and large arguments."""

    def score(self, values: list[float]) -> float:
        return sum(values)

    async def mean(self, array: Any) -> float:
        return float(array.mean())

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())


@serve.deployment(max_ongoing_requests=200)
@serve.ingress(api)
class Front:
    """The ingress."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.array = np.arange(500_000, dtype=np.float64)

    @api.get("/")
    async def noop(self) -> str:
        return "ok"

    @api.post("/score")
    async def score(self, item: Item) -> float:
        result: float = await self.scorer.score.remote(item.values)
        return result

    @api.get("/array")
    async def mean(self) -> float:
        result: float = await self.scorer.mean.remote(self.array)
        return result

    @api.get("/events")
    async def events(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for number in range(50):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(chunks(), media_type="text/event-stream")

    @api.post("/upload")
    async def upload(self, request: Request) -> int:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return size

    @api.get("/wait")
    async def wait(self) -> None:
        await self.scorer.wait.remote()

    @api.get("/fail")
    async def fail(self) -> None:
        raise HTTPException(418, "as asked")

    @api.get("/tasks")
    async def tasks(self) -> dict[str, int]:
        gc.collect()
        return {"front": len(asyncio.all_tasks()), "scorer": await self.scorer.tasks.remote()}

    @api.websocket("/socket")
    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except WebSocketDisconnect:
            pass


app = Front.bind(Scorer.bind())
