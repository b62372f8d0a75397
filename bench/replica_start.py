"""How long a further replica of a loaded class takes: kill the only one, and time the call that waits for the next."""

import os
import signal
import time
from statistics import median

import salver as serve
from salver.exceptions import ReplicaDiedError

RUNS = 15


@serve.deployment
class Named:
    def pid(self) -> int:
        return os.getpid()


def replica_start() -> list[tuple[str, str, str]]:
    """Return rows of (what, figure, goal)."""
    serve.start(proxy_location="Disabled")
    times = [_replace(f"bench-{number}") for number in range(RUNS)]
    serve.shutdown()
    figure = f"{median(times) * 1000:.0f} ms  ({min(times) * 1000:.0f}-{max(times) * 1000:.0f})"
    return [("replica killed → its successor has answered", figure, "≤ 50 ms")]


def _replace(name: str) -> float:
    handle = serve.run(Named.bind(), name=name, route_prefix=None)
    old = handle.pid.remote().result(timeout_s=30)
    began = time.perf_counter()
    os.kill(old, signal.SIGKILL)
    while True:
        try:
            if handle.pid.remote().result(timeout_s=30) != old:
                return time.perf_counter() - began
        except ReplicaDiedError:
            continue  # It was sent before the death was noticed.
