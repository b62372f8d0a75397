"""Streams that a request opens: what becomes of them when it is cancelled, is over, or runs out of time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from typing import Any

import pytest

from salver.handle.call import GRACE_S
from salver.handle.request_context import current_request
from salver.handle.session import current_session
from salver.schema.errors import RequestCancelledError, RequestTimeoutError
from salver.schema.ids import DeploymentID
from tests.unit.handle.test_call_deadlines import within
from tests.unit.handle.test_streaming import Numbers, all_of, idle, serve
from tests.unit.handle.worlds import World, in_thread
from tests.waiting import wait_until


async def test_a_stream_that_nobody_reads_is_cancelled_with_its_request(world: World) -> None:
    handle, numbers = await serve(world)

    async def parent() -> None:
        response = handle.endless_later.remote()
        await asyncio.Event().wait()
        del response

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: numbers.yielded, within_s=5, what="the stream")
    response.cancel()
    await idle(world)
    assert numbers.ends == ["cancelled", "closed"]


async def test_cancellation_goes_through_a_chain_of_generators(world: World) -> None:
    handle, numbers = await serve(world)

    async def middle() -> AsyncIterator[int]:
        async for number in handle.endless_later.remote():
            yield number

    middle_handle: Any = await world.serve("middle", middle)

    async def top() -> AsyncIterator[int]:
        async for number in middle_handle.options(stream=True).remote():
            yield number

    top_handle: Any = await world.serve("top", top)
    response = top_handle.options(stream=True).remote()
    assert [await anext(response) for _ in range(3)] == [1, 2, 3]
    response.cancel()
    await idle(world)
    assert numbers.ends == ["cancelled", "closed"]


async def test_a_slow_reader_slows_a_chain_of_generators(world: World) -> None:
    handle, numbers = await serve(world)

    async def middle() -> AsyncIterator[int]:
        async for number in handle.endless_later.remote():
            yield number

    middle_handle: Any = await world.serve("middle", middle)
    response = middle_handle.options(stream=True).remote()
    assert await anext(response) == 1
    await wait_until(lambda: numbers.yielded >= 500, within_s=5, what="a full window of both")
    for _ in range(200):
        await asyncio.sleep(0)
    assert numbers.yielded <= 600
    assert [await anext(response) for _ in range(2000)] == list(range(2, 2002))
    await response.aclose()
    await idle(world)


async def test_a_thread_that_waits_for_an_item_wakes_when_its_request_is_cancelled(world: World) -> None:
    handle, _ = await serve(world)
    raised: list[BaseException] = []

    def parent() -> Iterator[int]:
        try:
            yield from handle.hang.remote(1)
        except BaseException as error:
            raised.append(error)
            raise

    parent_handle: Any = await world.serve("parent", parent)
    response = parent_handle.options(stream=True).remote()
    assert await anext(response) == 0
    response.cancel()
    await wait_until(lambda: raised, within_s=5, what="the thread")
    assert isinstance(raised[0], RequestCancelledError | GeneratorExit)
    await idle(world)


async def test_a_cancelled_request_opens_no_more_streams_but_outside_of_its_context(world: World) -> None:
    handle, _ = await serve(world)
    seen: list[Any] = []

    async def parent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await anext(handle.count.remote(1))
            except RequestCancelledError as error:
                seen.append(error.request_id)
            seen.append(await all_of(Context().run(handle.count.remote, 2)))

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: world.servers["parent"].admission.taken, within_s=5, what="the parent")
    await asyncio.sleep(0)
    response.cancel()
    await wait_until(lambda: len(seen) == 2, within_s=5, what="both calls")
    assert seen == [response.request_id, [0, 1]]


async def test_streams_that_ended_are_forgotten(world: World) -> None:
    handle, _ = await serve(world)

    async def parent() -> int:
        await all_of(handle.count_later.remote(3))
        return len(current_request().children)

    assert await (await world.serve("parent", parent)).remote() == 0


async def test_what_a_generator_calls_has_its_request(world: World) -> None:
    handle, _ = await serve(world)

    async def parent() -> AsyncIterator[tuple[str, str]]:
        async for inner, _number in handle.where_later.remote(2):
            yield current_request().request_id, inner

    parent_handle: Any = await world.serve("parent", parent)
    response = parent_handle.options(stream=True).remote()
    assert await all_of(response) == [(response.request_id, response.request_id)] * 2


# Deadlines


async def test_a_running_stream_ends_at_its_deadline_after_the_items_so_far(world: World) -> None:
    handle, numbers = await serve(world)
    with within(0.1):
        response = handle.hang.remote(2)
    assert [await anext(response) for _ in range(2)] == [0, 1]
    with pytest.raises(RequestTimeoutError, match="Request the-request timed out"):
        await anext(response)
    await idle(world)
    assert numbers.ends == ["closed"]


async def test_a_stream_that_begins_after_the_deadline_fails_at_once(world: World) -> None:
    handle, numbers = await serve(world)
    with within(-1):
        response = handle.endless.remote()
    with pytest.raises(RequestTimeoutError):
        await anext(response)
    assert numbers.yielded == 0


async def test_a_thread_that_reads_wakes_at_the_deadline(world: World) -> None:
    handle, _ = await serve(world)
    with within(0.1), pytest.raises(RequestTimeoutError):
        await in_thread(lambda: list(handle.hang.remote(1)))
    assert GRACE_S > 0


async def test_what_is_left_of_the_time_travels_with_a_stream(world: World) -> None:
    async def deadline() -> AsyncIterator[float | None]:
        yield current_request().deadline

    handle: Any = await world.serve("inner", deadline)
    with within(50) as context:
        response = handle.options(stream=True).remote()
    assert context.deadline is not None
    assert context.deadline <= await anext(response) < context.deadline + 5
    with pytest.raises(StopAsyncIteration):
        await anext(response)
    await wait_until(lambda: not len(current_session().deadlines), within_s=5, what="an end of all watches")


async def test_a_stream_that_waits_leaves_the_queue_at_its_deadline(world: World) -> None:
    handle, _ = await serve(world, limit=1)
    first = handle.hang.remote()
    assert await anext(first) == 0
    with within(0.05), pytest.raises(RequestTimeoutError):
        await anext(handle.count.remote(1))
    assert world.routers.get(DeploymentID("numbers", "shop")).num_waiting == 0
    first.cancel()


# Generators that resist


class Stubborn(Numbers):
    """Swallows its cancellation."""

    async def stubborn(self) -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ends.append("swallowed")
        while True:
            self.yielded += 1
            yield self.yielded

    async def at_its_yield(self) -> AsyncIterator[int]:
        while True:
            try:
                self.yielded += 1
                yield self.yielded
            except asyncio.CancelledError:
                self.ends.append("swallowed")

    def slow(self) -> Iterator[int]:
        yield 0
        self.go_on.wait(10)
        yield 1
        self.ends.append("asked again")


@pytest.mark.parametrize("name", ["stubborn", "at_its_yield"])
async def test_a_generator_that_swallows_its_cancellation_is_closed_all_the_same(world: World, name: str) -> None:
    handle: Any = await world.serve("stubborn", Stubborn)
    stubborn = world.servers["stubborn"].user_code.instance
    response = getattr(handle.options(stream=True), name).remote()
    await anext(response)
    if name == "at_its_yield":
        await wait_until(lambda: stubborn.yielded > 200, within_s=5, what="a full window")
        await asyncio.sleep(0.01)
    response.cancel()
    await idle(world)
    assert stubborn.ends == ["swallowed"]
    assert stubborn.yielded <= 260


async def test_a_generator_that_is_cancelled_in_its_thread_keeps_its_slot_until_that_step_has_ended(
    world: World,
) -> None:
    handle: Any = await world.serve("stubborn", Stubborn)
    stubborn = world.servers["stubborn"].user_code.instance
    response = handle.options(stream=True).slow.remote()
    assert await anext(response) == 0
    response.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.servers["stubborn"].admission.taken == 1
    stubborn.go_on.set()
    await idle(world)
    assert stubborn.ends == []
