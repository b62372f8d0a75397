"""Deployments that the tests of long-lived handles run; in a module of their own, so that replicas import them."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from starlette.requests import Request

import salver as serve
from tests.waiting import wait_until


@serve.deployment(max_ongoing_requests=10)
class Model:
    def __init__(self, version: int = 0) -> None:
        self.version = version

    async def __call__(self, request: object) -> str:
        return f"version {self.version}"

    async def get(self) -> int:
        return self.version

    async def pid(self) -> int:
        return os.getpid()

    async def echo(self, value: Any) -> Any:
        return value

    async def hang(self) -> None:
        await asyncio.Event().wait()


@serve.deployment(max_ongoing_requests=10)
class Front:
    def __init__(self, model: serve.DeploymentHandle[Any]) -> None:
        self.model = model

    async def __call__(self, request: object) -> str:
        return f"version {await self.model.get.remote()}"

    async def get(self) -> Any:
        return await self.model.get.remote()

    async def pid(self) -> int:
        return os.getpid()


@serve.deployment(max_ongoing_requests=10)
class Abroad:
    """Calls a deployment of another application."""

    async def get(self) -> Any:
        return await serve.get_deployment_handle("Model", app_name="home").get.remote()

    async def hang(self) -> None:
        await serve.get_deployment_handle("Model", app_name="home").hang.remote()

    async def handle(self) -> Any:
        return serve.get_deployment_handle("Model", app_name="home").options(method_name="get", priority=2)

    async def use(self, handle: serve.DeploymentHandle[Any]) -> Any:
        return await handle.remote(), handle._options.session_id


@serve.deployment(max_ongoing_requests=1, request_priorities=True, max_queued_requests=3)
class Gate:
    def __init__(self) -> None:
        self.served: list[str] = []

    async def __call__(self, name: str, file: str) -> list[str]:
        self.served.append(name)
        await wait_until(lambda: os.path.exists(file), within_s=60, what="an open gate")
        return self.served


@serve.deployment(max_ongoing_requests=1, request_priorities=True)
class HttpGate:
    def __init__(self, file: str) -> None:
        self.file = file
        self.served: list[str] = []

    async def __call__(self, request: Request) -> str:
        self.served.append(request.url.query)
        Path(f"{self.file}.busy").touch()
        await wait_until(lambda: os.path.exists(self.file), within_s=60, what="an open gate")
        return " ".join(self.served)


@serve.deployment
class Broken:
    def __init__(self) -> None:
        raise ValueError("broken on purpose")


@serve.deployment
class Stuck:
    def __init__(self) -> None:
        threading.Event().wait()
