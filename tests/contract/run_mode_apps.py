"""Applications that every way to run must treat the same; in a module of their own, so that replicas import them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import salver as serve
from salver.exceptions import BackPressureError
from salver.handle.request_context import current_request


class CustomError(Exception):
    """An error with a constructor that wants a keyword."""

    def __init__(self, *, detail: str) -> None:
        super().__init__(f"custom: {detail}")
        self.detail = detail


@serve.deployment(max_ongoing_requests=100)
class Calculator:
    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, value: Any) -> Any:
        return value

    def add(self, *numbers: int, extra: int = 0) -> int:
        return self.base + sum(numbers) + extra

    async def add_async(self, number: int) -> int:
        return self.base + number

    def append(self, values: list[int]) -> list[int]:
        values.append(1)
        return values

    async def fail(self, why: str) -> None:
        raise CustomError(detail=why)

    def lock(self) -> Any:
        return threading.Lock()


@serve.deployment
class Broken:
    def __init__(self) -> None:
        raise CustomError(detail="in the constructor")


@serve.deployment(max_ongoing_requests=10, graceful_shutdown_timeout_s=0)
class Sleeper:
    def __init__(self) -> None:
        self.sleeping = 0
        self.cancelled = 0

    async def sleep(self) -> None:
        self.sleeping += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def counts(self) -> tuple[int, int]:
        return self.sleeping, self.cancelled


@serve.deployment(max_ongoing_requests=10)
class Parent:
    def __init__(self, sleeper: serve.DeploymentHandle[Any]) -> None:
        self.sleeper = sleeper

    async def wait(self) -> None:
        await self.sleeper.sleep.remote()


@serve.deployment(max_ongoing_requests=2)
class Gate:
    """Says how many requests were inside at once."""

    def __init__(self) -> None:
        self.inside = self.peak = 0

    async def __call__(self, _request: Any = None) -> int:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        await asyncio.sleep(0.002)
        self.inside -= 1
        return self.peak


@serve.deployment(max_ongoing_requests=1, max_queued_requests=2, graceful_shutdown_timeout_s=0)
class Full:
    async def __call__(self) -> None:
        await asyncio.Event().wait()


@serve.deployment(max_ongoing_requests=20)
class Splitter:
    async def split(self, text: str) -> list[str]:
        return text.split()

    async def request_id(self) -> str:
        return current_request().request_id

    async def hints(self) -> tuple[str, str]:
        request = current_request()
        return request.multiplexed_model_id, request.session_id


@serve.deployment(max_ongoing_requests=20)
class Counter:
    def count(self, words: list[str], *more: list[str]) -> int:
        return len(words) + sum(map(len, more))


@serve.deployment(max_ongoing_requests=20)
class Pipeline:
    def __init__(self, parts: dict[str, serve.DeploymentHandle[Any]]) -> None:
        self.splitter, self.counter = parts["splitter"], parts["counter"]

    async def chained(self, text: str) -> Any:
        words = self.splitter.split.remote(text)
        return await self.counter.count.remote(words, words)

    def blocking(self, text: str) -> Any:
        return self.counter.count.remote(self.splitter.split.remote(text)).result()

    async def fan_out(self, texts: list[str]) -> list[int]:
        answers = await asyncio.gather(*[self.splitter.split.remote(text) for text in texts])
        return [len(each) for each in answers]

    async def hints(self) -> list[tuple[str, str]]:
        named = self.splitter.options(multiplexed_model_id="inner")
        return [await self.splitter.hints.remote(), await named.hints.remote()]

    async def ids(self) -> list[str]:
        return [current_request().request_id, await self.splitter.request_id.remote()]


def pipeline() -> Any:
    return Pipeline.bind({"splitter": Splitter.bind(), "counter": Counter.bind()})


@serve.deployment(user_config={"threshold": 3})
class Configured:
    threshold: int

    async def reconfigure(self, config: dict[str, int]) -> None:
        self.threshold = config["threshold"]

    def get(self) -> int:
        return self.threshold


@serve.deployment(num_replicas=2, max_ongoing_requests=20)
class Pair:
    def __init__(self) -> None:
        self.started_as = serve.get_replica_context().replica_tag

    async def who(self) -> tuple[str, str, str, str, bool]:
        await asyncio.sleep(0.001)
        return await asyncio.to_thread(self._here)

    def who_sync(self) -> tuple[str, str, str, str, bool]:
        return self._here()

    def _here(self) -> tuple[str, str, str, str, bool]:
        context = serve.get_replica_context()
        own = context.servable_object is self
        return context.app_name, context.deployment, context.replica_tag, self.started_as, own


@serve.deployment
class Insider:
    def __init__(self, other: serve.DeploymentHandle[Any]) -> None:
        self.other = other

    async def look(self) -> list[Any]:
        sibling = serve.get_deployment_handle("Calculator")
        return [await sibling.add.remote(1), repr(serve.get_app_handle("inside"))]

    def look_sync(self) -> int:
        result: int = serve.get_deployment_handle("Calculator").add.remote(1).result()
        return result


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": "hello"}


api = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    x: float


def doubled(q: int = 1) -> int:
    return 2 * q


@api.get("/module")
def module_level() -> str:
    return "module"


@serve.deployment(max_ongoing_requests=20)
@serve.ingress(api)
class Api:
    def __init__(self, helper: serve.DeploymentHandle[Any]) -> None:
        self.helper = helper

    @api.post("/predict", status_code=201)
    async def predict(self, item: Item) -> dict[str, float]:
        return {"y": await self.helper.add_async.remote(int(item.x))}

    @api.get("/depends")
    def depends(self, value: int = Depends(doubled)) -> int:
        return value

    @api.get("/state")
    def state(self, request: Request) -> str:
        return str(request.state.greeting)

    @api.get("/raise")
    def fail(self) -> None:
        raise ValueError("in the endpoint")

    @api.get("/stream")
    async def stream(self) -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            for number in range(5):
                yield f"{number}\n"
                await asyncio.sleep(0)

        return StreamingResponse(numbers(), media_type="text/plain")

    @api.get("/root")
    def root(self, request: Request) -> dict[str, str]:
        return {"root_path": request.scope["root_path"], "path": request.scope["path"]}


PLAIN_ANSWERS = {"text": "text", "bytes": b"bytes", "none": None, "model": Item(x=1)}


@serve.deployment(max_ongoing_requests=20)
class Plain:
    async def __call__(self, request: Any) -> Any:
        wanted = request.query_params.get("as", "echo")
        if wanted in PLAIN_ANSWERS:
            return PLAIN_ANSWERS[wanted]
        match wanted:
            case "wait":
                await asyncio.Event().wait()
            case "raise":
                raise CustomError(detail="over HTTP")
            case "busy":
                raise BackPressureError(1, 1)
            case "id":
                return current_request().request_id
        body = await request.body()
        return {"method": request.method, "path": request.url.path, "size": len(body)}
