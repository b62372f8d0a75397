"""`python -m bench.batching`: what `@serve.batch` costs, and how near its adaptive mode is to the best fixed limits."""

import argparse
import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import uvloop

import salver as serve
from bench.batching_apps import CURVES, FEATURES, FULL, Clients, Curve, Model, Served, np

CLIENTS = 64
ROUNDS = 5
ROUND_S = 1.0
SIZES = (8, 16, 20, 32, 40, 48, 64, 128)
WAITS_S = (0.0, 0.002, 0.008)
SEARCH_S = 0.5
LEARNING_S = 4.0
TARGET_LATENCY_S = 0.08


def main() -> None:
    """Measure and print ratios, each of figures of the same run."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument("parts", nargs="*", help="overhead, adaptive; all by default")
    wanted = parser.parse_args().parts or ["overhead", "adaptive"]
    if "overhead" in wanted:
        print(f"{CLIENTS} calls at once, batches of {FULL}, against the model on full batches in a loop:")
        uvloop.run(_in_process())
    serve.start(proxy_location="Disabled")
    try:
        if "overhead" in wanted:
            _through_handles()
        if "adaptive" in wanted:
            print(
                f"{CLIENTS} handle calls at once, goal {TARGET_LATENCY_S * 1000:g} ms, against the best fixed limits:"
            )
            for name in CURVES:
                _adaptive(name)
    finally:
        serve.shutdown()


async def _in_process() -> None:
    model, item = Model(), np.ones(FEATURES, np.float32)

    async def call(method: Any) -> float:
        began = time.perf_counter()

        async def client() -> int:
            answers = 0
            while time.perf_counter() - began < ROUND_S:
                await method(item)
                answers += 1
            return answers

        counts = await asyncio.gather(*[client() for _ in range(CLIENTS)])
        return sum(counts) / (time.perf_counter() - began)

    rounds = [(model.full_batches(ROUND_S), await call(model.batched)) for _ in range(ROUNDS)]
    _show("@serve.batch itself, in one process", rounds)


def _through_handles() -> None:
    clients = serve.run(Clients.bind(Served.bind()), name="overhead", route_prefix=None)
    item = np.ones(FEATURES, np.float32)
    rounds, shares = [], []
    for _ in range(ROUNDS):
        loop, model_s = clients.ask.remote("loop", ROUND_S).result(timeout_s=60)
        before_s = clients.ask.remote("cpu_s").result(timeout_s=60)
        own = clients.call.remote("predict", item, CLIENTS, ROUND_S).result(timeout_s=60)
        all_s = (clients.ask.remote("cpu_s").result(timeout_s=60) - before_s) / (own * ROUND_S)
        rounds.append((loop, own))
        shares.append(model_s / all_s)
    _show("handle calls to a replica, the model in a thread", rounds)
    print(f"    of the replica's CPU time, the model has a share of {median(shares):.3f}", flush=True)
    serve.delete("overhead")


def _show(what: str, rounds: list[tuple[float, float]]) -> None:
    base, own = (median(each) for each in zip(*rounds, strict=True))
    ratio = median(mine / theirs for theirs, mine in rounds)
    print(f"  {what}: {own:,.0f}/s of {base:,.0f}/s, ratio {ratio:.3f}", flush=True)


def _adaptive(name: str) -> None:
    clients = serve.run(Clients.bind(Curve.bind(name, TARGET_LATENCY_S)), name="curve", route_prefix=None)

    def measure(method: str, seconds: float) -> tuple[float, float]:
        clients.ask.remote("take_latencies").result(timeout_s=60)
        rate = clients.call.remote(method, 1, CLIENTS, seconds).result(timeout_s=60)
        latencies = sorted(clients.ask.remote("take_latencies").result(timeout_s=60))
        return rate, latencies[int(len(latencies) * 0.95)]

    def fixed(limits: tuple[int, float], seconds: float) -> tuple[float, float]:
        clients.ask.remote("set_limits", *limits).result(timeout_s=60)
        return measure("fixed", seconds)

    best = _best(fixed)
    measure("adaptive", LEARNING_S)
    rounds = [(fixed(best, ROUND_S), measure("adaptive", ROUND_S)) for _ in range(ROUNDS)]
    ratio = median(mine[0] / theirs[0] for theirs, mine in rounds)
    theirs_ms, mine_ms = (1000 * median(each[index][1] for each in rounds) for index in (0, 1))
    print(
        f"  {name}: best fixed {best[0]} items, {best[1] * 1000:g} ms: {median(each[0][0] for each in rounds):,.0f}/s, "
        f"p95 {theirs_ms:.0f} ms; adaptive {median(each[1][0] for each in rounds):,.0f}/s, p95 {mine_ms:.0f} ms; "
        f"ratio {ratio:.3f}",
        flush=True,
    )
    serve.delete("curve")


def _best(fixed: Callable[[tuple[int, float], float], tuple[float, float]]) -> tuple[int, float]:
    """Search the fixed limits that answer most and keep the goal; the nearest few are measured for longer."""
    found = {(size, wait_s): fixed((size, wait_s), SEARCH_S) for size in SIZES for wait_s in WAITS_S}
    keeping = {limits: seen[0] for limits, seen in found.items() if seen[1] <= TARGET_LATENCY_S}
    finalists = sorted(keeping, key=keeping.__getitem__)[-4:]
    return max(finalists, key=lambda limits: fixed(limits, ROUND_S)[0])


if __name__ == "__main__":
    main()
