"""Deployments that the tests of large payloads run."""

import asyncio
import os
import time
from typing import Any

import numpy as np

import salver as serve


@serve.deployment(max_ongoing_requests=8)
class Store:
    """Takes arrays, makes them and keeps them."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def total(self, array: Any) -> float:
        return float(array.sum())

    def total_in_thread(self, array: Any) -> float:
        return float(array.sum())

    async def make(self, size: int, value: float) -> Any:
        return np.full(size, value)

    async def add_one(self, array: Any) -> Any:
        array += 1
        return array

    async def keep(self, array: Any) -> int:
        self.kept.append(array)
        return os.getpid()

    async def kept_total(self) -> float:
        return float(sum(each.sum() for each in self.kept))

    async def drop(self) -> None:
        self.kept.clear()

    async def hold(self, array: Any) -> float:
        self.kept.append(array)
        await asyncio.sleep(1000)
        return 0.0

    def pid(self) -> int:
        return os.getpid()


@serve.deployment(max_ongoing_requests=2)
class Slow:
    """Refuses what is more than two."""

    def __call__(self, array: Any) -> float:
        time.sleep(0.01)
        return float(array[0])


@serve.deployment(max_ongoing_requests=8)
class Front:
    """Passes arrays on to another deployment, and its results back."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def __call__(self, array: Any) -> Any:
        return await self.store.add_one.remote(array)

    def pid(self) -> int:
        return os.getpid()


@serve.deployment(max_ongoing_requests=8)
class Passing:
    """Returns what it was given; sums up when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.num_waiting = 0

    async def echo(self, array: Any) -> Any:
        return array

    async def total_later(self, array: Any) -> float:
        self.num_waiting += 1
        await self.go_on.wait()
        return float(array.sum())

    async def total_of_reference(self, boxes: list[Any]) -> float:
        return float((await boxes[0]).sum())

    async def waiting(self) -> int:
        return self.num_waiting

    async def release(self) -> None:
        self.go_on.set()

    def pid(self) -> int:
        return os.getpid()


@serve.deployment
class Failing:
    """Fails, by itself or further down."""

    def __init__(self, below: Any = None) -> None:
        self.below = below

    async def __call__(self) -> None:
        if self.below is None:
            raise LookupError("nothing there")
        await self.below.remote()
