"""A no-op application whose module imports FastAPI, which is what most users' modules do."""

import fastapi
from starlette.requests import Request

import salver as serve


@serve.deployment
class Noop:
    async def __call__(self, request: Request) -> str:
        return f"ok, beside FastAPI {fastapi.__version__}"


noop = Noop.bind()
