"""The workloads as BentoML services, one worker each: `bentoml serve bench.peers.bentoml_apps:Noop`."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import bentoml

from bench.work import CHUNKS, Answer, Room, answer
from bench.work import Question as Asked

OPTIONS: dict[str, Any] = {"workers": 1, "traffic": {"timeout": 60}, "metrics": {"enabled": False}}


@bentoml.service(**OPTIONS)
class Noop:
    @bentoml.api(route="/")
    async def noop(self) -> str:
        return "ok"


@bentoml.service(**OPTIONS)
class Predict:
    @bentoml.api(route="/predict")
    async def predict(self, name: str, rooms: list[Room], tags: list[str]) -> Answer:
        return answer(Asked(name=name, rooms=rooms, tags=tags))


@bentoml.service(**OPTIONS)
class Stream:
    @bentoml.api(route="/")
    async def stream(self) -> AsyncGenerator[str, None]:
        for chunk in CHUNKS:
            yield chunk.decode()
            await asyncio.sleep(0)
