"""`python -m bench.soak --minutes 30`: mixed load for a long time; memory, files, threads and tasks must stay flat.

Every process of the instance is sampled. After a warm-up, the rest is cut into windows, and the least memory in each is
what is judged: what a leak loses never comes back, and what requests use for a while does. The median of the slopes
between the windows (Theil's estimator) must be under 1 % of the process's memory in an hour.
"""

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from bench.asks import WrongAnswerError
from bench.running import free_port, serving

SAMPLE_PERIOD_S = 5.0
WARM_UP_SHARE = 0.3
WINDOWS = 10
MAX_SLOPE_PERCENT_PER_H = 1.0
MIN_GROWTH_BYTES = 256 * 1024
"""What a process has to itself changes by less without its doing: with who else still has the pages of the fork."""
ACTORS_OF_A_KIND = 3
# Without a pause the load generator takes all there is, and a starved replica has nothing to show.
PAUSE_S = 0.002

Actor = Callable[[int], Awaitable[str]]


def main() -> None:
    """Run the load, print the table, and exit with 1 where something grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="where to write all samples")
    arguments = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "salver", "run", "bench.soak_app:app", "--port", str(port)]
    with serving(command, port, _check) as served:
        samples, counts, tasks = asyncio.run(_soak(served.port, served.family, arguments.minutes * 60))
    verdicts = [_verdict(name, series) for name, series in samples.items()]
    if arguments.json:
        arguments.json.write_text(json.dumps({"samples": samples, "counts": counts, "tasks": tasks}), encoding="utf-8")
    _show(verdicts, counts, tasks)
    sys.exit(0 if all(each["ok"] for each in verdicts) and tasks[0] == tasks[1] else 1)


async def _soak(
    port: int, family: Callable[[], list[psutil.Process]], seconds: float
) -> tuple[dict[str, list[dict[str, float]]], dict[str, int], list[Any]]:
    counts: Counter[str] = Counter()
    samples: dict[str, list[dict[str, float]]] = {}
    await _play(port, counts, time.monotonic() + 5.0)
    tasks_before = await _tasks(port)
    end = time.monotonic() + seconds
    sampling = asyncio.get_running_loop().create_task(_sample(family, samples, end))
    await _play(port, counts, end)
    await sampling
    return samples, dict(counts), [tasks_before, await _tasks(port)]


async def _play(port: int, counts: Counter[str], end: float) -> None:
    async with asyncio.TaskGroup() as group:
        for actor in ACTORS:
            for _ in range(ACTORS_OF_A_KIND):
                group.create_task(_act(actor, port, counts, end))


async def _act(actor: Actor, port: int, counts: Counter[str], end: float) -> None:
    while time.monotonic() < end:
        counts[f"{actor.__name__}: {await actor(port)}"] += 1
        await asyncio.sleep(PAUSE_S)


async def _sample(
    family: Callable[[], list[psutil.Process]], samples: dict[str, list[dict[str, float]]], end: float
) -> None:
    began = time.monotonic()
    while (now := time.monotonic()) < end:
        for process in family()[1:]:
            memory = process.memory_full_info()
            samples.setdefault(f"{process.name()} ({process.pid})", []).append(
                {"at_s": now - began, "uss": memory.uss, "fds": process.num_fds(), "threads": process.num_threads()}
            )
        await asyncio.sleep(SAMPLE_PERIOD_S)


def _check(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse().read()
    connection.close()
    if answer != b'"ok"':
        raise WrongAnswerError(f"{answer[:100]!r}")


# What clients do


async def request(port: int, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n".encode())
    writer.write(b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body)
    return reader, writer


async def _whole(port: int, head: str, body: bytes = b"") -> str:
    reader, writer = await request(port, head, body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode()


async def keep_alive(port: int) -> str:
    """Ask often on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(100):
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4)
    writer.close()
    return head[9:12].decode()


async def post(port: int) -> str:
    """Validate and call another deployment."""
    return await _whole(port, "POST /score", b'{"name":"a","values":[1,2,3.5]}')


async def array(port: int) -> str:
    """Pass 4 MB on to another deployment."""
    return await _whole(port, "GET /array")


async def events(port: int) -> str:
    """Read a stream of events."""
    return await _whole(port, "GET /events")


async def upload(port: int) -> str:
    """Send 4 MB."""
    return await _whole(port, "POST /upload", b"x" * (1 << 22))


async def not_found(port: int) -> str:
    """Ask for a path that is always another one."""
    return await _whole(port, f"GET /nowhere/{random.getrandbits(64):x}")


async def invalid(port: int) -> str:
    """Send what the application refuses."""
    return await _whole(port, "POST /score", b'{"name": 3}')


async def nonsense(port: int) -> str:
    """Send what is no HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(random.randbytes(200) + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode()


async def leave(port: int) -> str:
    """Leave while a child call waits."""
    _, writer = await request(port, "GET /wait")
    await writer.drain()
    await asyncio.sleep(random.random() * 0.05)
    writer.transport.abort()
    return "left"


async def socket(port: int) -> str:
    """Talk over a WebSocket, and leave politely or not."""
    async with connect(f"ws://127.0.0.1:{port}/socket") as websocket:
        for number in range(50):
            await websocket.send(f"{number}")
            await websocket.recv()
        if random.random() < 0.5:
            websocket.transport.abort()
    return "done"


ACTORS: list[Actor] = [keep_alive, post, array, events, upload, not_found, invalid, nonsense, leave, socket]


async def _tasks(port: int) -> Any:
    """Ask how many tasks the replicas have, once those whose clients left have ended."""
    last: Any = None
    for _ in range(50):
        await asyncio.sleep(0.2)
        reader, writer = await request(port, "GET /tasks")
        found = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        if found == last:
            return found
        last = found
    return last


def _verdict(name: str, series: list[dict[str, float]]) -> dict[str, Any]:
    steady = series[int(len(series) * WARM_UP_SHARE) :]
    hours, floor = _floor(steady)
    pairs = list(combinations(range(len(floor)), 2))
    rises = [(floor[late] - floor[early]) / (hours[late] - hours[early]) for early, late in pairs]
    level = statistics.median(floor)
    slope = statistics.median(rises) / level * 100
    grown = floor[-1] - floor[0] >= MIN_GROWTH_BYTES and slope >= MAX_SLOPE_PERCENT_PER_H
    half = len(steady) // 2
    files = [max(each["fds"] for each in part) for part in (steady[:half], steady[half:])]
    threads = [max(each["threads"] for each in part) for part in (steady[:half], steady[half:])]
    return {
        "name": name,
        "uss_mb": level / 2**20,
        "first_mb": floor[0] / 2**20,
        "last_mb": floor[-1] / 2**20,
        "slope": slope,
        "fds": files,
        "threads": threads,
        "ok": not grown and threads[1] <= threads[0],
    }


def _floor(series: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Return for each window when it was, in hours, and the least memory in it, in bytes."""
    size = len(series)
    windows = [series[number * size // WINDOWS : (number + 1) * size // WINDOWS] for number in range(WINDOWS)]
    filled = [window for window in windows if window]
    return [window[0]["at_s"] / 3600 for window in filled], [min(each["uss"] for each in window) for window in filled]


def _show(verdicts: list[dict[str, Any]], counts: dict[str, int], tasks: list[Any]) -> None:
    table = Table("process", "memory", "first → last", "slope", "most files (halves)", "most threads", "flat")
    for each in verdicts:
        table.add_row(
            each["name"],
            f"{each['uss_mb']:.1f} MB",
            f"{each['first_mb']:.1f} → {each['last_mb']:.1f}",
            f"{each['slope']:+.2f} %/h",
            "{} → {}".format(*each["fds"]),
            "{} → {}".format(*each["threads"]),
            "yes" if each["ok"] else "NO",
        )
    console = Console()
    console.print(table)
    console.print(f"{sum(counts.values()):,} turns: {', '.join(f'{key} {value:,}' for key, value in counts.items())}")
    console.print(f"tasks in the replicas before and after: {tasks[0]} → {tasks[1]}")


if __name__ == "__main__":
    main()
