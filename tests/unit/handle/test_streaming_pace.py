"""The flow of items under random sizes, paces and ends: each once and in order, memory bounded, no slot lost."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.handle.items import Items
from salver.handle.session import set_session
from salver.schema.errors import ReplicaDiedError, RequestCancelledError
from salver.transport.wire import ITEM_OVERHEAD_BYTES, ITEM_WINDOW_SIZE_BYTES
from tests.unit.handle.test_streaming import idle
from tests.unit.handle.worlds import World
from tests.waiting import wait_until

LARGEST_BYTES = 300_000


class Broken(Exception):
    """What a generator raises."""


class Producer:
    """Yields items of given sizes.

    Attributes:
        sent_bytes: What its items have cost so far.
        ends: How often a generator has ended.
    """

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.ends = 0

    def sync(self, sizes: list[int], fails: bool) -> Generator[bytes, None, None]:
        try:
            for number, size in enumerate(sizes):
                self.sent_bytes += size + ITEM_OVERHEAD_BYTES
                yield number.to_bytes(4) + bytes(size)
            if fails:
                raise Broken
        finally:
            self.ends += 1

    async def later(self, sizes: list[int], fails: bool) -> AsyncIterator[bytes]:
        with closing(self.sync(sizes, fails)) as items:
            for each in items:
                yield each


class Plan(NamedTuple):
    """One stream.

    Attributes:
        turns: How many turns of the loop pass before each item is taken, again and again.
        end: What becomes of it after `taken` items, if it has so many.
    """

    method: str
    sizes: list[int]
    fails: bool
    turns: list[int]
    taken: int
    end: str


size = st.one_of(st.integers(0, 100), st.integers(0, 5000), st.integers(60_000, LARGEST_BYTES))
plans = st.builds(
    Plan,
    method=st.sampled_from(["sync", "later"]),
    sizes=st.one_of(st.lists(size, max_size=40), st.lists(st.just(0), min_size=250, max_size=400)),
    fails=st.booleans(),
    turns=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    taken=st.integers(0, 300),
    end=st.sampled_from(["nothing", "cancel", "close", "cut", "drop"]),
)


async def follow(world: World, plan: Plan) -> None:
    """Read a stream as planned."""
    handle: Any = await world.serve("producer", Producer, limit=1)
    producer = world.servers["producer"].user_code.instance
    response = getattr(handle.options(stream=True), plan.method).remote(plan.sizes, plan.fails)
    read_bytes = number = 0
    over: type[BaseException] = Broken if plan.fails else StopAsyncIteration
    while plan.end == "nothing" or number < plan.taken:
        for _ in range(plan.turns[number % len(plan.turns)]):
            await asyncio.sleep(0)
        ahead = producer.sent_bytes - read_bytes
        assert ahead <= ITEM_WINDOW_SIZE_BYTES + LARGEST_BYTES + 3 * ITEM_OVERHEAD_BYTES + 64 * 1024
        try:
            item = await anext(response)
        except over:
            assert number == len(plan.sizes)
            break
        assert (int.from_bytes(item[:4]), len(item)) == (number, plan.sizes[number] + 4)
        read_bytes += plan.sizes[number] + ITEM_OVERHEAD_BYTES
        number += 1
    await end(world, plan, response)
    del response
    await idle(world)
    assert producer.ends <= 1
    assert producer.ends == 1 or not producer.sent_bytes
    await wait_until(partial(nothing_in_flight, world), within_s=5, what="an end of all calls")


def nothing_in_flight(world: World) -> bool:
    """Say whether no caller thinks that a replica works for it."""
    return not any(channel.in_flight for router in world.routers._routers.values() for channel in router._choices)


async def end(world: World, plan: Plan, response: Any) -> None:
    """End a stream as planned."""
    if plan.end == "cancel":
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await anext(response)
    elif plan.end == "close":
        response.close()
        with pytest.raises(StopAsyncIteration):
            await anext(response)
    elif plan.end == "cut":
        # The controller's connection is the first.
        await wait_until(lambda: len(world.network.ends) > 1, within_s=5, what="a connection to the replica")
        world.network.ends[-1].cut()
        with pytest.raises((ReplicaDiedError, Broken, StopAsyncIteration)):
            await to_its_end(response)


async def to_its_end(response: Any) -> None:
    """Take items until something is raised."""
    while True:
        await anext(response)


async def in_a_world(plan: Plan) -> None:
    """Follow a plan in a world of its own."""
    world = World()
    await world.connect()
    try:
        await asyncio.wait_for(follow(world, plan), timeout=20)
    finally:
        set_session(None)
        for each in world.network.ends:
            each.abort()
        await world.tasks.close()
        await world.servers["producer"].user_code.close()
    assert world.failed == []


@settings(max_examples=150, deadline=None)
@given(plan=plans)
def test_items_arrive_once_and_in_order_and_no_more_than_a_window_ahead(plan: Plan) -> None:
    asyncio.run(in_a_world(plan))


# What waits at the caller

events = st.lists(st.sampled_from(["put", "gap", "fill", "take"]), max_size=60)


@given(events=events, ends=st.booleans())
def test_items_are_taken_in_order_and_never_past_a_gap(events: list[str], ends: bool) -> None:
    items = Items()
    order: list[bytes | None] = []
    gaps: list[int] = []
    taken: list[bytes] = []
    granted = 0
    for event in events:
        name = b"%d" % len(order)
        if event == "put":
            items.put(name, 0)
            order.append(name)
        elif event == "gap":
            items.leave_gap()
            gaps.append(len(order))
            order.append(None)
        elif event == "fill" and gaps:
            place = gaps.pop(0)
            order[place] = b"%d" % place
            items.fill_gap(b"%d" % place, 0)
        elif event == "take" and (item := items.take()) is not None:
            assert isinstance(item.pickled, bytes)
            taken.append(item.pickled)
            granted += item.grant_bytes
        assert items.has_gaps == bool(gaps)
        first = gaps[0] if gaps else len(order)
        assert items.has_news == (len(taken) < first)
    if ends:
        items.end()
        assert items.has_news
    while (item := items.take()) is not None:
        assert isinstance(item.pickled, bytes)
        taken.append(item.pickled)
        granted += item.grant_bytes
    assert taken == order[: gaps[0] if gaps else len(order)]
    assert 0 <= len(taken) * ITEM_OVERHEAD_BYTES - granted < 64 * 1024


def test_who_waits_is_called_back_at_each_kind_of_news_once() -> None:
    items = Items()
    calls: list[str] = []
    items.call_back(partial(calls.append, "an item"))
    items.leave_gap()
    assert calls == []
    items.put(b"", 0)
    items.call_back(partial(calls.append, "the missing one"))
    items.fill_gap(b"", 0)
    items.call_back(partial(calls.append, "the end"))
    items.end()
    items.end()
    assert calls == ["an item", "the missing one", "the end"]
