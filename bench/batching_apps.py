"""What `python -m bench.batching` serves; imports Salver and NumPy only."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # Before NumPy starts a thread for each core.

import numpy as np

import salver as serve

FEATURES = 1024
LAYERS = 8
FULL = 32
CURVES: dict[str, Callable[[int], float]] = {
    "flat": lambda size: 0.010,
    "linear": lambda size: 0.004 + 0.0005 * size,
    "step": lambda size: 0.010 * math.ceil(size / 20),
}


class Model:
    """Some matrix products with a vector of each item: a few milliseconds for a full batch."""

    def __init__(self) -> None:
        random = np.random.default_rng(1)
        shape = (LAYERS, FEATURES, FEATURES)
        self.weights = random.standard_normal(shape).astype(np.float32) / np.float32(FEATURES**0.5)

    def apply(self, rows: Any) -> Any:
        """Return the model's answers to a batch."""
        for weights in self.weights:
            rows = np.maximum(rows @ weights, 0)
        return rows

    def full_batches(self, seconds: float) -> float:
        """Call the model on full batches in a loop; return the items a second."""
        rows, items = np.ones((FULL, FEATURES), np.float32), 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            items += len(self.apply(rows))
        return items / (time.perf_counter() - began)

    @serve.batch(max_batch_size=FULL, batch_wait_timeout_s=0.01)
    async def batched(self, items: list[Any]) -> list[Any]:
        """Answer on the event loop."""
        return list(self.apply(np.stack(items)))

    @serve.batch(max_batch_size=FULL, batch_wait_timeout_s=0.01, max_concurrent_batches=2)
    async def in_thread(self, items: list[Any]) -> list[Any]:
        """Answer in a thread, so that the event loop goes on with the requests, and has the next batch ready."""
        return list(await asyncio.to_thread(self.apply, np.stack(items)))


@serve.deployment(max_ongoing_requests=200)
class Served(Model):
    async def predict(self, item: Any) -> Any:
        return await self.in_thread(item)

    async def loop(self, seconds: float) -> tuple[float, float]:
        """Return the items a second of the model alone, and its CPU seconds for each."""
        before_s, began = time.process_time(), time.perf_counter()
        rate = await asyncio.to_thread(self.full_batches, seconds)
        return rate, (time.process_time() - before_s) / (rate * (time.perf_counter() - began))

    async def cpu_s(self) -> float:
        return time.process_time()


@serve.deployment(max_ongoing_requests=200)
class Curve:
    """Costs what a curve says: once with limits that are set from outside, once with such as it finds."""

    def __init__(self, name: str, target_latency_s: float) -> None:
        self._cost = CURVES[name]
        self.latencies: list[float] = []

        @serve.batch(max_batch_size=128, target_latency_s=target_latency_s)
        async def adaptive(items: list[int]) -> list[int]:
            return await self._work(items)

        self._adaptive = adaptive

    async def set_limits(self, max_batch_size: int, wait_s: float) -> None:
        self._fixed.set_max_batch_size(max_batch_size)
        self._fixed.set_batch_wait_timeout_s(wait_s)

    async def fixed(self, item: int) -> Any:
        return await self._timed(self._fixed(item))

    async def adaptive(self, item: int) -> Any:
        return await self._timed(self._adaptive(item))

    async def take_latencies(self) -> list[float]:
        """Return the seconds from arrival to answer of all calls since the last time."""
        latencies, self.latencies = self.latencies, []
        return latencies

    @serve.batch(max_batch_size=128)
    async def _fixed(self, items: list[int]) -> list[int]:
        return await self._work(items)

    async def _timed(self, call: Any) -> Any:
        began = time.perf_counter()
        answer = await call
        self.latencies.append(time.perf_counter() - began)
        return answer

    async def _work(self, items: list[int]) -> list[int]:
        # In a thread, because event loops round their timers to milliseconds.
        await asyncio.to_thread(time.sleep, self._cost(len(items)))
        return items


@serve.deployment
class Clients:
    """Calls a deployment's method with so many calls at once; returns the answers a second."""

    def __init__(self, target: serve.DeploymentHandle[Any]) -> None:
        self._target = target

    async def call(self, method: str, item: Any, clients: int, seconds: float) -> float:
        handle = getattr(self._target, method)
        began = time.perf_counter()

        async def client() -> int:
            answers = 0
            while time.perf_counter() - began < seconds:
                await handle.remote(item)
                answers += 1
            return answers

        counts = await asyncio.gather(*[client() for _ in range(clients)])
        return sum(counts) / (time.perf_counter() - began)

    async def ask(self, method: str, *args: Any) -> Any:
        return await getattr(self._target, method).remote(*args)
