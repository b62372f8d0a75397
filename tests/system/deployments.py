"""Deployments that the tests of handles run; in a module of their own, so that replicas import them."""

import asyncio
import os
import threading
import time
from typing import Any

import salver as serve


class CustomError(Exception):
    """An error with a constructor that wants a keyword."""

    def __init__(self, *, detail: str) -> None:
        super().__init__(f"custom: {detail}")
        self.detail = detail


@serve.deployment
class Calculator:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, *numbers: int, extra: int = 0) -> int:
        return self.base + sum(numbers) + extra

    async def __call__(self, value: Any) -> Any:
        return value

    def fail(self, why: str) -> None:
        raise CustomError(detail=why)


@serve.deployment
class Sleeper:
    def __init__(self) -> None:
        self.cancelled = 0

    async def sleep(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def cancelled_count(self) -> int:
        return self.cancelled


@serve.deployment
class Splitter:
    async def split(self, text: str) -> tuple[list[str], str]:
        from salver.handle.request_context import current_request

        return text.split(), current_request().request_id


@serve.deployment
class Counter:
    def count(self, words: tuple[list[str], str]) -> int:
        return len(words[0])


@serve.deployment
class Pipeline:
    def __init__(self, parts: dict[str, serve.DeploymentHandle[Any]]) -> None:
        self.splitter, self.counter = parts["splitter"], parts["counter"]

    async def __call__(self, text: str) -> dict[str, Any]:
        from salver.handle.request_context import current_request

        words, request_id = await self.splitter.split.remote(text)
        chained = self.counter.count.remote(self.splitter.split.remote(text))
        return {"words": len(words), "ids": [request_id, current_request().request_id], "chained": await chained}


def pipeline() -> Any:
    return Pipeline.bind({"splitter": Splitter.bind(), "counter": Counter.bind()})


@serve.deployment(max_ongoing_requests=2)
class Limited:
    def __init__(self) -> None:
        self.running = 0

    async def __call__(self) -> int:
        self.running += 1
        peak = self.running
        await asyncio.sleep(0.002)
        self.running -= 1
        return peak


@serve.deployment(max_ongoing_requests=100)
class Fan:
    def __init__(self, target: serve.DeploymentHandle[Any]) -> None:
        self.target = target

    async def call_many(self, count: int) -> list[Any]:
        return await asyncio.gather(*[self.target.remote() for _ in range(count)])


@serve.deployment(max_ongoing_requests=2, max_queued_requests=3, graceful_shutdown_timeout_s=0)
class Queue:
    async def __call__(self) -> None:
        await asyncio.Event().wait()


@serve.deployment
class Mortal:
    def __init__(self) -> None:
        self.is_hanging = False

    async def pid(self) -> int:
        return os.getpid()

    async def hang(self) -> None:
        self.is_hanging = True
        await asyncio.Event().wait()

    async def hanging(self) -> bool:
        return self.is_hanging


@serve.deployment
class Version:
    def __init__(self, version: int) -> None:
        if version < 0:
            raise ValueError("negative versions are not served")
        self.version = version

    async def __call__(self, request: object) -> str:
        await asyncio.sleep(0.001)
        return str(self.version)

    def get(self) -> str:
        return str(self.version)


@serve.deployment
class Insider:
    def __init__(self, version: serve.DeploymentHandle[Any]) -> None:
        self.version = version

    async def look(self) -> dict[str, Any]:
        context = serve.get_replica_context()
        return {
            "app_name": context.app_name,
            "deployment": context.deployment,
            "servable": type(context.servable_object).__name__,
            "sibling": await serve.get_deployment_handle("Version").get.remote(),
            "app_handle": repr(serve.get_app_handle("inside")),
        }


@serve.deployment(max_ongoing_requests=3)
class Threads:
    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def meet(self) -> str:
        time.sleep(0.05)
        self.barrier.wait(10)
        return "met"

    async def quick(self) -> str:
        return "quick"
