"""Cancel many requests at random moments, then look for what is left of them.

`python -m tests.soak.cancels --count 20000`; a small one runs in the suite (tests/system/test_cancels.py).
"""

import argparse
import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

import salver as serve
from salver.exceptions import RequestCancelledError
from tests.soak.deployments import NUM_FRONT_SLOTS, NUM_TALK_SLOTS, app, talk_app
from tests.waiting import wait_until

CONCURRENCY = 96
"""Three times what the first deployment runs, so that most requests wait."""
ANSWERED_WITHIN_S = 30.0
APP_NAME, TALK_NAME = "cancelled", "talk"
HANDSHAKE = (
    b"GET /talk/ HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HELLO = b"\x81\x85\x00\x00\x00\x00hello"
"""A masked text frame; the mask changes nothing."""
LEAF_KINDS = ("hang", "stream", "child", "children", "thread")


class Target(NamedTuple):
    """What is cancelled."""

    host: str
    port: int
    handle: Any
    talk: Any
    chance: random.Random

    def moment_s(self) -> float:
        """Return how long a request may live."""
        return self.chance.choice((0.0, self.chance.uniform(0, 0.01), self.chance.uniform(0, 0.08)))

    async def ask(self, what: str, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request on a connection of its own."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        lines = [f"GET /?do={what} HTTP/1.1", "host: here", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        return reader, writer


async def client_leaves(target: Target, what: str) -> str:
    """Close the connection, maybe before anything was read from it."""
    _, writer = await target.ask(what)
    await asyncio.sleep(target.moment_s())
    writer.transport.abort()
    return "client left"


async def client_leaves_mid_stream(target: Target, _what: str) -> str:
    """Close the connection when some of the answer has come."""
    reader, writer = await target.ask("stream")
    try:
        await asyncio.wait_for(reader.read(100), timeout=2 * target.moment_s() + 0.02)
    except TimeoutError:
        # It waited in the queue, and is cancelled there.
        outcome = "client left the queue"
    else:
        outcome = "client left a stream"
    writer.transport.abort()
    return outcome


async def deadline_passes(target: Target, what: str) -> str:
    """Let the proxy end the request: with a 408, or in the middle of the answer."""
    reader, writer = await target.ask(what, f"x-request-timeout-seconds: {target.moment_s() + 0.005:.4f}")
    try:
        status = await asyncio.wait_for(reader.readline(), timeout=ANSWERED_WITHIN_S)
        if b" 200 " in status:
            await asyncio.wait_for(reader.read(), timeout=ANSWERED_WITHIN_S)
    except ConnectionResetError:
        status = b"HTTP/1.1 200 OK"
    writer.transport.abort()
    code = status.split()[1].decode()
    assert code in ("200", "408"), status
    return "deadline: 408" if code == "408" else "deadline: cut"


async def caller_cancels(target: Target, what: str) -> str:
    """Cancel a handle's call."""
    response = getattr(target.handle, "hang" if what == "stream" else what).remote()
    await asyncio.sleep(target.moment_s())
    response.cancel()
    try:
        await response
    except RequestCancelledError:
        return "call cancelled"
    raise AssertionError("a cancelled call was answered")


async def task_is_cancelled(target: Target, what: str) -> str:
    """Cancel the task that awaits a handle's call."""
    response = getattr(target.handle, "hang" if what == "stream" else what).remote()
    try:
        await asyncio.wait_for(_awaited(response), timeout=target.moment_s() + 0.001)
    except TimeoutError:
        return "awaiting task cancelled"
    raise AssertionError("a cancelled call was answered")


async def _awaited(response: Any) -> None:
    await response


async def socket_breaks(target: Target, _what: str) -> str:
    """Break a WebSocket: while it waits for a place, once it is open, or in the middle of a conversation."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(HANDSHAKE)
    outcome = "socket broken"
    try:
        async with asyncio.timeout(target.moment_s() + 0.001):
            status = await reader.readuntil(b"\r\n\r\n")
            assert status.startswith(b"HTTP/1.1 101 "), status
            while True:
                writer.write(HELLO)
                assert await reader.readexactly(7) == b"\x81\x05hello"
                outcome = "socket broken in a conversation"
    except TimeoutError:
        writer.transport.abort()
    return outcome


Way = Callable[[Target, str], Awaitable[str]]
WAYS: list[Way] = [
    client_leaves,
    client_leaves_mid_stream,
    deadline_passes,
    caller_cancels,
    task_is_cancelled,
    socket_breaks,
]
"""How requests are cancelled; add a coroutine function that cancels one and returns what it saw."""


async def cancel_many(target: Target, count: int) -> Counter[str]:
    """Cancel so many requests, many at a time; return how they ended."""
    numbers = itertools.count()
    outcomes: Counter[str] = Counter()

    async def work() -> None:
        while next(numbers) < count:
            way, what = target.chance.choice(WAYS), target.chance.choice(LEAF_KINDS)
            outcomes[await way(target, what)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(work())
    return outcomes


async def nothing_is_left(target: Target) -> list[tuple[int, int]]:
    """Wait until no handler runs and every slot can be used at once; return the counts."""
    counts: list[tuple[int, int]] = []

    async def idle() -> bool:
        counts[:] = await asyncio.wait_for(_value(target.handle.all_counts.remote()), timeout=ANSWERED_WITHIN_S)
        counts.append(await asyncio.wait_for(_value(target.talk.counts.remote()), timeout=ANSWERED_WITHIN_S))
        # The one who counts is not inside.
        return not any(inside for inside, _ in counts)

    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while not await idle():
        assert time.monotonic() < deadline, f"handlers still run: {counts}"
    await asyncio.wait_for(
        asyncio.gather(*[_asked(target, "meet_here") for _ in range(NUM_FRONT_SLOTS)]), timeout=ANSWERED_WITHIN_S
    )
    calls = [target.handle.meet_here.remote() for _ in range(NUM_FRONT_SLOTS)]
    await asyncio.wait_for(asyncio.gather(*map(_value, calls)), timeout=ANSWERED_WITHIN_S)
    await asyncio.wait_for(_asked(target, "meet_leaves"), timeout=ANSWERED_WITHIN_S)
    calls = [target.talk.meet.remote(NUM_TALK_SLOTS) for _ in range(NUM_TALK_SLOTS)]
    await asyncio.wait_for(asyncio.gather(*map(_value, calls)), timeout=ANSWERED_WITHIN_S)
    return counts


async def _value(response: Any) -> Any:
    return await response


async def _asked(target: Target, what: str) -> None:
    reader, writer = await target.ask(what, "connection: close")
    answer = await reader.read()
    writer.close()
    assert answer.endswith(b"met"), answer


class Size(NamedTuple):
    """What a process holds."""

    memory_size_bytes: int
    num_files: int


def sizes() -> dict[str, Size]:
    """Return the sizes of this process and all that belong to its instance, by name."""
    own = psutil.Process()
    return {
        f"{each.name()} {each.pid}": Size(each.memory_info().rss, each.num_fds())
        for each in [own, *own.children(recursive=True)]
    }


class Result(NamedTuple):
    """What became of the cancelled."""

    outcomes: Counter[str]
    counts: list[tuple[int, int]]
    before: dict[str, Size]
    after: dict[str, Size]
    took_s: float


async def soak(url: str, *, count: int, warm_up: int, seed: int = 1) -> Result:
    """Cancel, look, and cancel again: what the second time adds is a leak."""
    parts = urlsplit(url)
    handles = [serve.get_app_handle(name) for name in (APP_NAME, TALK_NAME)]
    target = Target(parts.hostname or "", parts.port or 80, handles[0], handles[1], random.Random(seed))
    await cancel_many(target, warm_up)
    await nothing_is_left(target)
    before = sizes()
    began = time.monotonic()
    outcomes = await cancel_many(target, count)
    took_s = time.monotonic() - began
    counts = await nothing_is_left(target)
    await wait_until(lambda: _files(sizes()) <= _files(before) + 4, within_s=10, what="closed connections")
    return Result(outcomes, counts, before, sizes(), took_s)


def _files(of: dict[str, Size]) -> int:
    return sum(each.num_files for each in of.values())


def main() -> None:
    """Run a soak and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--warm-up", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    serve.start(http_options={"port": 0})
    run_deployments()
    result = asyncio.run(soak(serve_url(), count=given.count, warm_up=given.warm_up, seed=given.seed))
    print(f"{given.count} cancelled in {result.took_s:.1f} s: {dict(result.outcomes)}")
    print(f"(inside, entered) of Front, Leaf, Threads, Talk: {result.counts}")
    for name, after in result.after.items():
        before = result.before.get(name)
        if before is not None:
            grown = (after.memory_size_bytes - before.memory_size_bytes) / 1e6
            print(f"{name:32} {after.memory_size_bytes / 1e6:7.1f} MB  {grown:+6.2f} MB  {after.num_files} files")
    serve.shutdown()


def run_deployments() -> None:
    """Run what is cancelled."""
    serve.run(app, name=APP_NAME)
    serve.run(talk_app, name=TALK_NAME, route_prefix="/talk")


def serve_url() -> str:
    """Return where this process's instance listens."""
    from salver.api.driver import find_driver

    driver = find_driver()
    assert driver is not None
    assert driver.instance.http_url is not None
    return driver.instance.http_url


if __name__ == "__main__":
    main()
