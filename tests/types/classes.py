"""What the type tests serve and call."""

from collections.abc import AsyncIterator, Awaitable, Iterator

import salver as serve


class Translator:
    def __init__(self, language: str, *, beams: int = 1) -> None:
        self.language = language
        self.beams = beams

    async def __call__(self, text: str, limit: int = 100, share: float = 1.0) -> list[str]:
        return [text]

    def score(self, text: str) -> float:
        return len(text) / self.beams

    async def languages(self, *, short: bool = False) -> dict[str, int]:
        return {self.language: int(short)}


class Counter:
    def __call__(self, number: int) -> str:
        return str(number)

    def later(self, number: int) -> Awaitable[str]:
        raise NotImplementedError


class Talker:
    async def __call__(self, prompt: str, size: int = 1) -> AsyncIterator[str]:
        for _ in range(size):
            yield prompt

    def numbers(self, end: int) -> Iterator[int]:
        yield from range(end)


class Batching:
    @serve.batch
    async def __call__(self, numbers: list[int]) -> list[str]:
        return [str(number) for number in numbers]

    @serve.batch(max_batch_size=3)
    async def half(self, numbers: list[int]) -> list[float]:
        return [number / 2 for number in numbers]


class Nothing:
    def look(self) -> None: ...


class Ingress:
    def __init__(
        self, translator: serve.DeploymentHandle[Translator], counters: dict[str, serve.DeploymentHandle[Counter]]
    ) -> None:
        self.translator = translator
        self.counters = counters

    async def __call__(self, text: str) -> list[str]:
        return await self.translator.remote(text)


def shout(text: str, times: int = 1) -> str:
    return text * times


async def count() -> int:
    return 1
