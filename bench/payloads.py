"""What large arguments and results cost, as a multiple of one copy of their bytes into memory that exists already."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import salver as serve
from bench.results import Figure

ROUNDS = 25
WARM_UP_ROUNDS = 5
MB = 1_000_000


@serve.deployment(max_ongoing_requests=10)
class Store:
    """Takes arrays and makes them; the looks at them are done here, too, so that both sides are measured."""

    def __init__(self, size_bytes: int) -> None:
        self._array = np.ones(size_bytes // 8)

    async def take(self, array: Any) -> int:
        return int(array.size)

    async def look(self, array: Any) -> float:
        return float(array.max())

    async def give(self) -> Any:
        return self._array

    async def relay(self, array: Any) -> Any:
        return array


def payloads() -> list[Figure]:
    """Return ratios to a copy of the same bytes, and milliseconds of smaller arguments."""
    serve.start(proxy_location="Disabled")
    try:
        figures = _measure_100_mb()
        for size_mb in (1, 10):
            values = [seconds * 1000 for seconds in _call_with(size_mb * MB)]
            figures.append(Figure(f"argument_{size_mb}_mb", f"{size_mb} MB numpy argument", "ms", values))
        return figures
    finally:
        serve.shutdown()


def _measure_100_mb() -> list[Figure]:
    array = np.random.default_rng(1).random(100 * MB // 8)
    copy = array.copy()
    handle = serve.run(Store.bind(array.nbytes), name="bench-payloads", route_prefix=None)
    second, third = (serve.run(Store.bind(0), name=f"bench-payloads-{name}", route_prefix=None) for name in "bc")
    work: dict[str, Callable[[], Any]] = {
        "copy": lambda: np.copyto(copy, array),
        "argument": lambda: handle.take.remote(array).result(timeout_s=60),
        "max": array.max,
        "argument that is read": lambda: handle.look.remote(array).result(timeout_s=60),
        "result": lambda: handle.give.remote().result(timeout_s=60),
        "three": lambda: third.take.remote(second.relay.remote(handle.give.remote())).result(timeout_s=60),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    # Turn by turn, so that a slow moment of the machine hits all.
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for name, act in work.items():
            taken = _seconds(act)
            if number >= WARM_UP_ROUNDS:
                seconds[name].append(taken)
    base = seconds["copy"]
    read = [copied + looked for copied, looked in zip(base, seconds["max"], strict=True)]
    return [
        Figure("copy_100_mb", "copy of 100 MB into memory that exists", "ms", [each * 1000 for each in base]),
        Figure("argument_100_mb", "100 MB numpy argument", "× a copy", _ratios(seconds["argument"], base), 1.5),
        Figure(
            "read_100_mb",
            "100 MB numpy argument, all of it read",
            "× copying and reading it",
            _ratios(seconds["argument that is read"], read),
        ),
        Figure("result_100_mb", "100 MB numpy result", "× a copy", _ratios(seconds["result"], base)),
        Figure(
            "three_100_mb", "100 MB numpy array through three deployments", "× a copy", _ratios(seconds["three"], base)
        ),
    ]


def _call_with(size_bytes: int) -> list[float]:
    array = np.ones(size_bytes // 8)
    handle = serve.get_app_handle("bench-payloads")
    taken = [_seconds(lambda: handle.take.remote(array).result(timeout_s=60)) for _ in range(WARM_UP_ROUNDS + ROUNDS)]
    return taken[WARM_UP_ROUNDS:]


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _ratios(values: list[float], base: list[float]) -> list[float]:
    return [value / copied for value, copied in zip(values, base, strict=True)]
