"""Deployments that the tests of streams run; in a module of their own, so that replicas import them."""

import asyncio
import os
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

import salver as serve

CHUNK_SIZE_BYTES = 64 * 1024


@serve.deployment(max_ongoing_requests=20)
class Source:
    """Yields; says how much, and how its generators ended."""

    def __init__(self) -> None:
        self.yielded = 0
        self.ends: list[str] = []

    def count(self, number: int) -> Iterator[int]:
        yield from range(number)

    async def count_later(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each

    def arrays(self, number: int) -> Iterator[Any]:
        for each in range(number):
            yield np.full(125_000, float(each))

    async def endless(self, size_bytes: int = 0) -> AsyncIterator[Any]:
        try:
            while True:
                self.yielded += 1
                yield bytes(size_bytes) if size_bytes else self.yielded
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        finally:
            self.ends.append("closed")

    def endless_in_thread(self) -> Iterator[int]:
        try:
            while True:
                self.yielded += 1
                yield self.yielded
        finally:
            self.ends.append("closed")

    async def chunks(self, number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield bytes(CHUNK_SIZE_BYTES)

    def pid_then_hang(self) -> Iterator[int]:
        yield os.getpid()
        yield from range(3)
        queue.SimpleQueue[int]().get()

    async def seen(self) -> tuple[int, list[str]]:
        return self.yielded, self.ends

    async def plain(self) -> int:
        return 1


@serve.deployment
class Relay:
    """Passes streams on, to handles and to clients."""

    def __init__(self, source: serve.DeploymentHandle[Any]) -> None:
        self.source: Any = source.options(stream=True)

    async def double(self, number: int) -> AsyncIterator[int]:
        async for each in self.source.count.remote(number):
            yield 2 * each

    def double_in_thread(self, number: int) -> Iterator[int]:
        for each in self.source.count_later.remote(number):
            yield 2 * each

    async def total(self, number: int) -> int:
        return sum([each async for each in self.source.count.remote(number)])

    async def endless(self) -> AsyncIterator[int]:
        async for each in self.source.endless.remote():
            yield each

    async def pid(self) -> int:
        return os.getpid()

    async def __call__(self, request: Request) -> StreamingResponse:
        number = int(request.query_params.get("chunks", 0))
        method = self.source.chunks.remote(number) if number else self.source.endless.remote(CHUNK_SIZE_BYTES)
        return StreamingResponse(method)


api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Front:
    def __init__(self, source: serve.DeploymentHandle[Any]) -> None:
        self.source: Any = source.options(stream=True)

    @api.get("/count")
    async def count(self, number: int) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async for each in self.source.count.remote(number):
                yield f"{each}\n"

        return StreamingResponse(lines(), media_type="text/plain")

    @api.get("/count-in-thread")
    def count_in_thread(self, number: int) -> StreamingResponse:
        return StreamingResponse((f"{each}\n" for each in self.source.count.remote(number)), media_type="text/plain")


@serve.deployment
class StreamingResponder:
    """The reference's example of a streamed answer."""

    def __init__(self) -> None:
        self.cancelled = False

    async def generate_numbers(self, maximum: int) -> AsyncIterator[str]:
        for each in range(maximum):
            yield str(each)
            await asyncio.sleep(0.001)

    async def generate_forever(self) -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                yield str(number)
                number += 1
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled = True

    async def was_cancelled(self) -> bool:
        return self.cancelled

    def __call__(self, request: Request) -> StreamingResponse:
        maximum = request.query_params.get("max")
        numbers = self.generate_forever() if maximum is None else self.generate_numbers(int(maximum))
        return StreamingResponse(numbers, status_code=200, media_type="text/plain")


@serve.deployment
class Streamer:
    """The reference's example of a streaming handle call."""

    def __call__(self, limit: int) -> Iterator[int]:
        yield from range(limit)


@serve.deployment
class Caller:
    def __init__(self, streamer: serve.DeploymentHandle[Any]) -> None:
        self._streamer: Any = streamer.options(stream=True)

    async def __call__(self, limit: int) -> AsyncIterator[int]:
        response = self._streamer.remote(limit)
        async for each in response:
            yield each


chat = FastAPI()


@serve.deployment
@serve.ingress(chat)
class Textbot:
    """The reference's chatbot: a model in a thread fills a queue, a generator empties it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    @chat.post("/")
    def handle_request(self, prompt: str) -> StreamingResponse:
        tokens: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.loop.run_in_executor(None, self.generate_text, prompt, tokens)
        return StreamingResponse(self.consume(tokens), media_type="text/plain")

    def generate_text(self, prompt: str, tokens: "queue.SimpleQueue[str | None]") -> None:
        for word in prompt.split():
            tokens.put(word.upper() + " ")
        tokens.put(None)

    async def consume(self, tokens: "queue.SimpleQueue[str | None]") -> AsyncIterator[str]:
        while True:
            try:
                token = tokens.get_nowait()
            except queue.Empty:
                await asyncio.sleep(0.001)
                continue
            if token is None:
                return
            yield token
