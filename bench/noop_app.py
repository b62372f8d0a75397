"""A no-op application whose module imports nothing else: what Salver itself takes to start."""

from starlette.requests import Request

import salver as serve


@serve.deployment
class Noop:
    async def __call__(self, request: Request) -> str:
        return "ok"


noop = Noop.bind()
