"""From the command to the first 200, and what the processes take in memory by then."""

import time
from pathlib import Path

from bench.asks import ANYTHING
from bench.contenders import Salver
from bench.results import Figure
from bench.running import Served

RUNS = 7
SETTLED_WITHIN_S = 10.0
NOOP = Salver("bench.noop_app:noop")
FASTAPI = Salver("bench.fastapi_app:noop")


def startup() -> list[Figure]:
    """Return the seconds to the first answer, and the megabytes of all processes but the command."""
    noop = [_first_answer(NOOP) for _ in range(RUNS)]
    fastapi = [_first_answer(FASTAPI) for _ in range(RUNS)]
    with NOOP.serve(ANYTHING) as served:
        memory = _memory(served)
    parts = ", ".join(f"{name} {pss:.0f}" for name, pss in memory)
    total = sum(pss for name, pss in memory if name != "command")
    return [
        Figure("startup", "`salver run` of a no-op → first 200", "s", noop, 0.6),
        Figure("startup_fastapi", "the same, its module imports FastAPI", "s", fastapi, 0.9),
        Figure("memory", f"PSS without the command ({parts})", "MB", [total], 100),
    ]


def _first_answer(app: Salver) -> float:
    with app.serve(ANYTHING) as served:
        return served.first_answer_s


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
