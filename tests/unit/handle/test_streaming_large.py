"""Large items of streams: each in its place, however it travels, and nothing left of their memory."""

import errno
import gc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from salver.schema.errors import ReplicaDiedError
from salver.transport.mappings import Mapping
from salver.transport.segments import process_pool
from tests.unit.handle.test_large_calls import nothing_left  # noqa: F401 - a fixture for all tests here
from tests.unit.handle.test_streaming import all_of, idle
from tests.unit.handle.worlds import World, in_thread
from tests.unit.transport.large import settle
from tests.waiting import wait_until

SIZE = 20_000


class Arrays:
    """Yields large items, small ones, and both in turn.

    Attributes:
        yielded: How many items have left a generator.
    """

    def __init__(self) -> None:
        self.yielded = 0

    def many(self, number: int) -> Iterator[Any]:
        for value in range(number):
            self.yielded += 1
            yield np.full(SIZE, float(value))

    async def mixed(self, number: int) -> AsyncIterator[Any]:
        for value in range(number):
            yield np.full(SIZE, float(value)) if value % 3 else value

    async def mixed_then_fail(self, number: int) -> AsyncIterator[Any]:
        async for each in self.mixed(number):
            yield each
        raise ValueError("enough")


async def serve(world: World) -> Any:
    """Start the deployment."""
    handle: Any = await world.serve("arrays", Arrays)
    return handle.options(stream=True)


def values(items: list[Any]) -> list[float]:
    """Return which items these are."""
    assert all(isinstance(each, int) or (each == each[0]).all() for each in items)
    return [float(each) if isinstance(each, int) else float(each[0]) for each in items]


async def test_large_items_arrive_in_order_with_small_ones_between(world: World) -> None:
    handle = await serve(world)
    assert values(await all_of(handle.mixed.remote(30))) == list(range(30))


async def test_a_reader_that_drops_each_item_needs_the_memory_of_a_few(world: World) -> None:
    handle = await serve(world)
    async for item in handle.many.remote(60):
        assert item[0] == item[-1]
        assert process_pool().num_segments <= 16
    del item


async def test_a_slow_reader_stops_the_producer_of_large_items(world: World) -> None:
    handle = await serve(world)
    arrays = world.servers["arrays"].user_code.instance
    response = handle.many.remote(100)
    assert (await anext(response))[0] == 0
    window = (1 << 20) // (SIZE * 8)
    await wait_until(lambda: arrays.yielded >= window, within_s=5, what="a full window")
    await settle()
    assert arrays.yielded <= window + 3
    response.cancel()
    await idle(world)


async def test_a_thread_reads_large_items(world: World) -> None:
    handle = await serve(world)

    def read() -> list[float]:
        return [float(each[1]) for each in handle.many.remote(30)]

    assert await in_thread(read) == list(range(30))


async def test_items_that_nobody_takes_give_their_memory_back(world: World) -> None:
    handle = await serve(world)
    response = handle.many.remote(100)
    arrays = world.servers["arrays"].user_code.instance
    await wait_until(lambda: arrays.yielded > 1, within_s=5, what="an item")
    del response
    gc.collect()
    await idle(world)
    await settle()


@pytest.mark.parametrize("unreadable", [{0}, {0, 1}, {1, 3}, set(range(100))], ids=str)
@pytest.mark.parametrize("method", ["mixed", "mixed_then_fail"])
async def test_items_whose_memory_cannot_be_read_keep_their_place(
    world: World, monkeypatch: pytest.MonkeyPatch, unreadable: set[int], method: str
) -> None:
    made = Mapping.__init__
    mapped = iter(range(100))

    def now_and_then(self: Any, *arguments: Any) -> None:
        if next(mapped) in unreadable:
            raise PermissionError(errno.EACCES, "no")
        made(self, *arguments)

    monkeypatch.setattr(Mapping, "__init__", now_and_then)
    handle = await serve(world)
    response = getattr(handle, method).remote(7)
    assert values([await anext(response) for _ in range(7)]) == list(range(7))
    with pytest.raises(ValueError if method == "mixed_then_fail" else StopAsyncIteration):
        await anext(response)
    await idle(world)
    assert not next(iter(world.routers._routers.values()))._choices[0].in_flight


@pytest.mark.parametrize("how", ["cut", "cancelled"])
async def test_an_item_that_has_to_come_again_may_never_come(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def out_of_reach(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    handle = await serve(world)
    response = handle.mixed.remote(4)
    assert await anext(response) == 0
    near = world.network.ends[-1]
    near.hold()
    await wait_until(partial(getattr, response._call, "_is_answered"), within_s=5, what="the end")
    if how == "cut":
        near.cut()
        with pytest.raises(ReplicaDiedError):
            await anext(response)
    else:
        response.cancel()
        near.release()
    del response
    await idle(world)
    await settle()
