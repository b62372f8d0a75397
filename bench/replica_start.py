"""How long a further replica of a loaded class takes: kill the only one, and time the call that waits for the next."""

import os
import signal
import time

import salver as serve
from bench.results import Figure
from salver.exceptions import ReplicaDiedError

RUNS = 15


@serve.deployment
class Named:
    def pid(self) -> int:
        return os.getpid()


def replica_start() -> list[Figure]:
    """Return the milliseconds from a replica's death to its successor's first answer."""
    serve.start(proxy_location="Disabled")
    times_ms = [_replace(f"bench-{number}") * 1000 for number in range(RUNS)]
    serve.shutdown()
    return [Figure("replica_start", "replica killed → its successor has answered", "ms", times_ms, 50)]


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
