"""From the command to the first 200, and what the processes take in memory by then."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.running import Served, salver

RUNS = 7
SETTLED_WITHIN_S = 10.0


def startup() -> list[tuple[str, str, str]]:
    """Return rows of (what, figure, goal)."""
    noop = [_first_answer("bench.apps:noop") for _ in range(RUNS)]
    fastapi = [_first_answer("bench.fastapi_app:noop") for _ in range(RUNS)]
    with salver("bench.apps:noop") as served:
        memory = _memory(served)
    parts = ", ".join(f"{name} {pss:.0f}" for name, pss in memory)
    total = sum(pss for name, pss in memory if name != "command")
    return [
        ("salver run, no-op → first 200", _seconds(noop), "≤ 0.6 s"),
        ("salver run, module imports FastAPI → first 200", _seconds(fastapi), "≤ 0.9 s"),
        (f"PSS without the command ({parts})", f"{total:.0f} MB", "≤ 100 MB"),
    ]


def _first_answer(app: str) -> float:
    with salver(app) as served:
        return served.first_answer_s


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} s  ({min(values):.2f}-{max(values):.2f})"


def _memory(served: Served) -> list[tuple[str, float]]:
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while any(each.name().startswith("build") for each in served.family()):
        # The process that evaluated `module:app` is about to exit.
        if time.monotonic() > deadline:
            raise RuntimeError("the builder is still there")
        time.sleep(0.01)
    command, *others = served.family()
    named = [("command", command), *((each.name(), each) for each in others)]
    return [(name, _pss_mb(process.pid)) for name, process in named]


def _pss_mb(pid: int) -> float:
    """Return a process's proportional share of memory: pages that several processes map count once in all."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss line")
