"""What the benchmarks serve."""

from starlette.requests import Request

import salver as serve


@serve.deployment(max_ongoing_requests=1000)
class Noop:
    async def __call__(self, request: Request) -> str:
        return "ok"


noop = Noop.bind()
