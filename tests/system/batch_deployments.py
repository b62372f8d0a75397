"""Deployments that the tests of batches run; in a module of their own, so that replicas import them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

import salver as serve
from salver.handle.request_context import current_request


@serve.deployment(max_ongoing_requests=100)
class Doubler:
    """Answers with the double, and the size of the batch."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()

    def reconfigure(self, config: dict[str, Any]) -> None:
        self.double.set_max_batch_size(config["max_batch_size"])
        self.double.set_batch_wait_timeout_s(config["wait_s"])

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=5.0)
    async def double(self, numbers: list[int]) -> list[tuple[int, int]]:
        self.calls += 1
        if 13 in numbers:
            raise ValueError("thirteen")
        return [(2 * number, len(numbers)) for number in numbers]

    @serve.batch(max_batch_size=1)
    async def hold(self, numbers: list[int]) -> list[int]:
        await self.gate.wait()
        return numbers

    async def release(self) -> None:
        self.gate.set()

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.2)
    async def model(self, numbers: list[int]) -> list[tuple[str, list[str]]]:
        request = current_request()
        return [(request.multiplexed_model_id, list(request.batch_request_ids))] * len(numbers)

    async def __call__(self, request: Request) -> list[int]:
        return list(await self.double(int(request.query_params["n"])))

    async def waiting(self) -> int:
        counters = self.double.counters
        return 0 if counters is None else counters.batch_queue_length

    async def called(self) -> int:
        return self.calls

    async def stack(self) -> str | None:
        return await self.hold._get_handling_task_stack()


@serve.deployment(max_ongoing_requests=100)
class Speller:
    """Streams the letters of a word; several requests at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=5.0)
    async def spell(self, words: list[str]) -> AsyncGenerator[list[Any], None]:
        self.sizes.append(len(words))
        for place in range(max(map(len, words)) + 1):
            yield [word[place] + " " if place < len(word) else StopIteration for word in words]

    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.spell(request.query_params["word"]), media_type="text/plain")

    async def batch_sizes(self) -> list[int]:
        return self.sizes


@serve.deployment(max_ongoing_requests=3)
@serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
async def lengths(requests: list[Request]) -> list[int]:
    """A function whose HTTP requests are batched themselves; its batches can never be full."""
    return [len(requests) for _ in requests]
