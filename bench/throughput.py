"""Requests per second through the proxy and one replica, as a share of bare uvicorn's raw ASGI rate in the same run."""

import re
import subprocess
from statistics import median

from bench.running import salver, uvicorn

ROUNDS = 3
SECONDS = 4


def throughput() -> list[tuple[str, str, str]]:
    """Return rows of (what, figure, goal)."""
    rates: dict[str, list[float]] = {"uvicorn": [], "salver": []}
    p50: dict[str, list[float]] = {"uvicorn": [], "salver": []}
    with uvicorn("bench.bare_asgi:app") as bare, salver("bench.apps:noop") as served:
        # Turn by turn, so that a slow moment of the machine hits both.
        for _ in range(ROUNDS):
            for name, port in (("uvicorn", bare.port), ("salver", served.port)):
                rates[name].append(_wrk(port, connections=64)[0])
                p50[name].append(_wrk(port, connections=1)[1])
    ours, theirs = median(rates["salver"]), median(rates["uvicorn"])
    return [
        ("bare uvicorn, raw ASGI, 64 connections", f"{theirs:,.0f}/s", "baseline"),
        ("salver, no-op, 64 connections, 1 replica", f"{ours:,.0f}/s = {ours / theirs:.2f} × uvicorn", "≥ 0.6 ×"),
        ("one connection, p50", f"{median(p50['salver']):.0f} µs against {median(p50['uvicorn']):.0f} µs", ""),
    ]


def _wrk(port: int, *, connections: int) -> tuple[float, float]:
    """Return requests per second and the median latency in microseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"the server failed under load:\n{text}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    if rate is None or p50 is None:
        raise RuntimeError(f"wrk printed something unexpected:\n{text}")
    return float(rate[1]), float(p50[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[p50[2]]
