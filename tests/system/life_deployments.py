"""Deployments that say how they live; in a module of their own, so that replicas import them."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

import salver as serve


def itself() -> str:
    return serve.get_replica_context().replica_tag


@serve.deployment(
    num_replicas=2, health_check_period_s=0.1, health_check_timeout_s=5, ray_actor_options={"num_cpus": 0.1}
)
class Patient:
    """Is ill once it is told so."""

    def __init__(self) -> None:
        self.is_ill = False

    async def __call__(self) -> str:
        await asyncio.sleep(0.001)
        return itself()

    async def fall_ill(self) -> str:
        self.is_ill = True
        return itself()

    def check_health(self) -> None:
        if self.is_ill:
            raise ValueError("no heart beat")


@serve.deployment(health_check_period_s=0.02, ray_actor_options={"num_cpus": 0.1})
class Flapping:
    """Fails two checks of three."""

    def __init__(self) -> None:
        self.checks = 0

    async def check_health(self) -> None:
        self.checks += 1
        if self.checks % 3 != 1:
            raise ValueError("not now")

    async def look(self) -> tuple[str, int]:
        return itself(), self.checks


@serve.deployment(health_check_period_s=0.05, health_check_timeout_s=0.2, ray_actor_options={"num_cpus": 0.1})
class Hanging:
    """Never returns from its check once it is told so."""

    def __init__(self) -> None:
        self.hangs = False

    def check_health(self) -> None:
        if self.hangs:
            threading.Event().wait()

    async def hang(self) -> str:
        self.hangs = True
        return itself()

    async def look(self) -> str:
        return itself()


@serve.deployment(health_check_period_s=0.02, health_check_timeout_s=0.4, ray_actor_options={"num_cpus": 0.1})
class Blocking:
    """Holds its loop, with checks under way."""

    def __init__(self) -> None:
        self.checks = 0

    async def check_health(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0.02)
        self.checks += 1

    async def block(self) -> str:
        for _ in range(5):
            await asyncio.sleep(0.06)
            time.sleep(0.8)
        return itself()

    async def look(self) -> tuple[str, int]:
        return itself(), self.checks


@serve.deployment(max_constructor_retry_count=1, ray_actor_options={"num_cpus": 0.1})
class IllFromBirth:
    async def check_health(self) -> None:
        raise ValueError("ill from birth")


@serve.deployment(num_replicas=3, user_config={"a": 1}, ray_actor_options={"num_cpus": 0.1})
class Ranked:
    def __init__(self) -> None:
        self.in_constructor = serve.get_replica_context().rank
        self.calls: list[tuple[Any, Any]] = []

    def reconfigure(self, user_config: Any, rank: Any) -> None:
        self.calls.append((user_config, rank.rank))

    async def look(self) -> dict[str, Any]:
        context = serve.get_replica_context()
        assert context.servable_object is self
        return {
            "pid": os.getpid(),
            "rank": context.rank.rank,
            "first_rank": self.in_constructor.rank,
            "local_rank": context.rank.local_rank,
            "world_size": context.world_size,
            "calls": self.calls,
        }


events: list[str] = []


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    events.append("lifespan")
    yield


@serve.deployment(user_config={}, health_check_period_s=0.05, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(FastAPI(lifespan=lifespan))
class Hooked:
    async def __init__(self) -> None:  # type: ignore[misc]
        events.append("__init__")

    def reconfigure(self, user_config: Any) -> None:
        events.append("reconfigure")

    async def check_health(self) -> None:
        events.append("check_health")

    async def look(self) -> list[str]:
        return events
