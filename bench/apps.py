"""What the benchmarks serve with Salver; `bench/bare_apps.py` and `bench/peers/` do the same work without it."""

import asyncio
import time
from collections.abc import AsyncIterator
from statistics import median, quantiles
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

import salver as serve
from bench.work import CHUNKS, PAYLOAD, Answer, Question, answer

# No CPU is set aside, so that two replicas or a chain fit a machine of any size.
OPTIONS: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}


@serve.deployment(**OPTIONS)
class Noop:
    async def __call__(self, request: Request) -> str:
        return "ok"


@serve.deployment(**OPTIONS)
class Plain:
    def __call__(self, request: Request) -> str:
        return "ok"


api = FastAPI()


@serve.deployment(**OPTIONS)
@serve.ingress(api)
class Predict:
    @api.post("/predict")
    async def predict(self, question: Question) -> Answer:
        return answer(question)


@serve.deployment(**OPTIONS)
class Echo:
    async def __call__(self, body: bytes) -> bytes:
        return body


@serve.deployment(**OPTIONS)
class Chain:
    def __init__(self, echo: serve.DeploymentHandle[Any]) -> None:
        self.echo = echo

    async def __call__(self, request: Request) -> Response:
        return Response(await self.echo.remote(await request.body()))


@serve.deployment(**OPTIONS)
class Stream:
    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        await asyncio.sleep(0)


@serve.deployment(**OPTIONS)
class Events:
    async def __call__(self) -> AsyncIterator[bytes]:
        async for chunk in _events():
            yield chunk


@serve.deployment(**OPTIONS)
class StreamChain:
    def __init__(self, events: serve.DeploymentHandle[Any]) -> None:
        self.events: Any = events.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.events.remote(), media_type="text/event-stream")


@serve.deployment(**OPTIONS)
class Caller:
    """Calls another deployment for a while and says how fast that went."""

    def __init__(self, echo: serve.DeploymentHandle[Any]) -> None:
        self.echo = echo

    async def __call__(self, request: Request) -> dict[str, float]:
        concurrency = int(request.query_params.get("concurrency", "1"))
        end = time.perf_counter() + float(request.query_params.get("seconds", "0"))
        took_s: list[float] = []
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._call(end, took_s))
        rate = len(took_s) / (time.perf_counter() - began)
        p99 = quantiles(took_s, n=100)[98] if len(took_s) > 1 else took_s[0]
        return {"rate": rate, "p50_us": median(took_s) * 1e6, "p99_us": p99 * 1e6}

    async def _call(self, end: float, took_s: list[float]) -> None:
        while True:
            began = time.perf_counter()
            if await self.echo.remote(PAYLOAD) != PAYLOAD:
                raise RuntimeError("the echo is not what was sent")
            now = time.perf_counter()
            took_s.append(now - began)
            if now >= end:
                return


noop = Noop.bind()
plain = Plain.bind()
predict = Predict.bind()
predict_two = Predict.options(num_replicas=2).bind()
chain = Chain.bind(Echo.bind())
stream = Stream.bind()
stream_chain = StreamChain.bind(Events.bind())
caller = Caller.bind(Echo.bind())
