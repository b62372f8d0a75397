"""Calls of generators, as frames see them; the other side is in tests/unit/handle/test_streaming.py."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from salver.transport.codec import dumps, loads
from salver.transport.wire import (
    CALL,
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    ITEM_OVERHEAD_BYTES,
    ITEM_WINDOW_SIZE_BYTES,
    REJECT,
    CallHead,
    CreditHead,
)
from tests.unit.replica.callers import Client, Start, encode, settle
from tests.waiting import wait_until

SMALL_ITEMS = ITEM_WINDOW_SIZE_BYTES // ITEM_OVERHEAD_BYTES


class Generators:
    """Yields, and remembers."""

    def __init__(self) -> None:
        self.yielded = 0
        self.ends: list[str] = []
        self.go_on = asyncio.Event()
        self.threads: set[str] = set()

    async def endless(self) -> AsyncIterator[int]:
        try:
            while True:
                self.yielded += 1
                yield self.yielded
        finally:
            self.ends.append("closed")

    def endless_in_thread(self) -> Iterator[int]:
        try:
            while True:
                self.yielded += 1
                yield self.yielded
        finally:
            self.threads.add(threading.current_thread().name)

    async def then_wait(self) -> AsyncIterator[int]:
        yield 1
        await self.go_on.wait()
        yield 2

    def in_thread(self) -> Iterator[int]:
        for number in range(3):
            self.threads.add(threading.current_thread().name)
            yield number

    async def compute(self) -> AsyncIterator[int]:
        """Never wait for anything; note whether the loop came in between."""
        for number in range(3):
            asyncio.get_running_loop().call_soon(self.ends.append, f"after {number}")
            yield number
            self.ends.append(f"resumed {number}")

    async def fail_while_it_ends(self) -> AsyncIterator[int]:
        try:
            yield 1
            yield threading.Lock()  # type: ignore[misc]
        finally:
            raise ValueError("on the way out")


def stream(caller: Client, number: int, method: str) -> None:
    """Call a generator."""
    head = CallHead(method, f"request-{number}", "/shop", "shop", "", is_streaming=True)
    caller.connection.send(CALL, number, encode(head), dumps(((), {})))


def credit(caller: Client, number: int, items: int) -> None:
    """Grant credit for so many small items."""
    # A number's pickle has five bytes or seven.
    caller.connection.send(CREDIT, number, encode(CreditHead(items * (ITEM_OVERHEAD_BYTES + 5))))


async def test_each_item_is_a_chunk_and_the_end_says_the_load(start: Start) -> None:
    caller = await (await start(Generators)).caller()
    stream(caller, 7, "in_thread")
    frames = [await caller.next() for _ in range(4)]
    assert [(frame.kind, frame.stream, frame.load) for frame in frames] == [(CHUNK, 7, 0)] * 3 + [(END, 7, 0)]
    assert [loads(frame.body) for frame in frames[:3]] == [0, 1, 2]


async def test_a_plain_generator_runs_in_worker_threads(start: Start) -> None:
    rig = await start(Generators)
    caller = await rig.caller()
    stream(caller, 1, "in_thread")
    await wait_until(lambda: caller.frames.qsize() == 4, within_s=5, what="all frames")
    assert all(name.startswith("salver-user") for name in rig.server.user_code.instance.threads)


async def test_a_plain_generator_is_closed_in_a_worker_thread(start: Start) -> None:
    rig = await start(Generators)
    generators = rig.server.user_code.instance
    caller = await rig.caller()
    stream(caller, 1, "endless_in_thread")
    await wait_until(lambda: generators.yielded == SMALL_ITEMS, within_s=5, what="a full window")
    caller.send(CANCEL, 1)
    await wait_until(lambda: rig.server.admission.taken == 0, within_s=5, what="an idle replica")
    assert [name[:11] for name in generators.threads] == ["salver-user"]


async def test_an_item_leaves_while_the_generator_waits(start: Start) -> None:
    rig = await start(Generators)
    caller = await rig.caller()
    stream(caller, 1, "then_wait")
    assert loads((await caller.next()).body) == 1
    rig.server.user_code.instance.go_on.set()
    assert loads((await caller.next()).body) == 2
    assert (await caller.next()).kind == END


async def test_the_loop_comes_to_its_turn_before_each_step_of_a_generator_that_never_waits(start: Start) -> None:
    rig = await start(Generators)
    caller = await rig.caller()
    stream(caller, 1, "compute")
    await wait_until(lambda: caller.frames.qsize() == 4, within_s=5, what="all frames")
    assert rig.server.user_code.instance.ends == [
        *("after 0", "resumed 0", "after 1", "resumed 1", "after 2", "resumed 2")
    ]


async def test_a_generator_is_asked_for_no_more_than_the_credit_allows(start: Start) -> None:
    rig = await start(Generators)
    generators = rig.server.user_code.instance
    caller = await rig.caller()
    stream(caller, 1, "endless")
    await wait_until(lambda: generators.yielded >= SMALL_ITEMS, within_s=5, what="a full window")
    await settle()
    assert generators.yielded == SMALL_ITEMS
    credit(caller, 1, 10)
    await wait_until(lambda: generators.yielded > SMALL_ITEMS, within_s=5, what="more")
    await settle()
    assert SMALL_ITEMS + 9 <= generators.yielded <= SMALL_ITEMS + 10
    numbers = [loads(frame.body) for frame in caller.received()]
    assert numbers == list(range(1, generators.yielded + 1))


@pytest.mark.parametrize("how", ["cancelled", "gone"])
async def test_a_generator_that_waits_for_credit_is_closed(start: Start, how: str) -> None:
    rig = await start(Generators)
    generators = rig.server.user_code.instance
    caller = await rig.caller()
    stream(caller, 1, "endless")
    await wait_until(lambda: generators.yielded == SMALL_ITEMS, within_s=5, what="a full window")
    await settle()
    assert rig.server.admission.taken == 1
    if how == "cancelled":
        caller.send(CANCEL, 1)
    else:
        caller.connection.abort()
    await wait_until(lambda: rig.server.admission.taken == 0, within_s=5, what="an idle replica")
    assert generators.ends == ["closed"]
    assert {frame.kind for frame in caller.received()} == {CHUNK}


async def test_a_stream_that_is_cancelled_before_its_first_step_leaves_its_slot(start: Start) -> None:
    rig = await start(Generators)
    caller = await rig.caller()
    stream(caller, 1, "endless")
    caller.send(CANCEL, 1)
    await settle()
    assert (rig.server.admission.taken, rig.server.user_code.instance.yielded) == (0, 0)


async def test_a_full_replica_refuses_a_stream(start: Start) -> None:
    rig = await start(Generators, limit=1)
    caller = await rig.caller()
    stream(caller, 1, "then_wait")
    assert (await caller.next()).kind == CHUNK
    stream(caller, 2, "then_wait")
    assert (await caller.next()).kind == REJECT
    rig.server.user_code.instance.go_on.set()


async def test_what_a_generator_raises_while_it_is_closed_is_told(start: Start) -> None:
    caller = await (await start(Generators)).caller()
    stream(caller, 1, "fail_while_it_ends")
    assert (await caller.next()).kind == CHUNK
    assert str(await caller.error()) == "on the way out"


async def test_credit_for_a_stream_that_has_ended_is_nothing_to_worry_about(start: Start) -> None:
    caller = await (await start(Generators)).caller()
    stream(caller, 1, "in_thread")
    await wait_until(lambda: caller.frames.qsize() == 4, within_s=5, what="all frames")
    credit(caller, 1, 3)
    stream(caller, 2, "in_thread")
    await wait_until(lambda: caller.frames.qsize() == 8, within_s=5, what="the second stream")
