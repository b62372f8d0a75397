"""The patterns that deployments are composed by, and what a request tells the calls that it makes."""

import asyncio
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from salver.handle.request_context import current_request
from salver.schema.errors import BackPressureError, RemoteError
from tests.unit.handle.worlds import Hanging, World, echo
from tests.waiting import wait_until


async def double(number: int) -> int:
    """Return twice as much."""
    return 2 * number


def plain_sum(boxes: list[Any]) -> int:
    """Block for what is inside, in a thread."""
    return sum(each.result(timeout_s=5) for each in boxes)


async def test_chaining(world: World) -> None:
    handle = await world.serve("double", double)
    assert await handle.remote(handle.remote(handle.remote(1))) == 8


async def test_fan_out_and_in(world: World) -> None:
    handle = await world.serve("double", double)
    assert await asyncio.gather(*[handle.remote(each) for each in range(20)]) == [2 * each for each in range(20)]


async def test_an_ensemble_gets_its_members_answers_by_reference_in_a_thread(world: World) -> None:
    handle, ensemble = await world.serve("double", double), await world.serve("sum", plain_sum)
    assert await ensemble.remote([handle.remote(1), handle.remote(2)]) == 6


async def count_up(first: int, boxes: list[Any]) -> Any:
    """Yield numbers from one argument to another's content."""
    for number in range(first, await boxes[0]):
        yield number


async def test_a_stream_gets_responses_as_arguments_and_by_reference(world: World) -> None:
    handle, counting = await world.serve("double", double), await world.serve("counting", count_up)
    stream = counting.options(stream=True).remote(handle.remote(1), [handle.remote(3)])
    assert [each async for each in stream] == [2, 3, 4, 5]


async def test_dispatch_by_what_a_request_says(world: World) -> None:
    targets = {"double": await world.serve("double", double), "echo": await world.serve("echo", echo)}

    async def dispatch(name: str, number: int) -> Any:
        return await targets[name].remote(number)

    handle = await world.serve("dispatch", dispatch)
    assert [await handle.remote("double", 4), await handle.remote("echo", 4)] == [8, 4]


async def test_two_parents_share_a_deployment(world: World) -> None:
    shared = await world.serve("double", double)

    async def parent(number: int) -> Any:
        return await shared.remote(number) + 1

    parents = [await world.serve(name, parent) for name in ("one", "two")]
    assert [await each.remote(2) for each in parents] == [5, 5]


async def test_a_handle_is_an_argument_and_a_result(world: World) -> None:
    handle, other = await world.serve("double", double), await world.serve("echo", echo)
    returned = await other.remote(handle)
    assert isinstance(returned, DeploymentHandle)
    assert await returned.remote(3) == 6


async def test_a_handle_from_outside_of_a_request_begins_one(world: World) -> None:
    async def request_id() -> str:
        return current_request().request_id

    response = (await world.serve("id", request_id)).remote()
    assert await response == response.request_id


async def test_a_deployment_that_calls_itself_with_full_slots_waits(world: World) -> None:
    handle: DeploymentHandle[Any]

    async def recursive(depth: int) -> int:
        return depth if depth == 0 else await handle.remote(depth - 1)

    handle = await world.serve("recursive", recursive, limit=2)
    assert await handle.remote(1) == 0
    stuck = handle.remote(2)
    await wait_until(lambda: world.servers["recursive"].admission.taken == 2, within_s=5, what="two that wait")
    assert not stuck.settled
    stuck.cancel()
    await wait_until(lambda: not world.servers["recursive"].admission.taken, within_s=5, what="an end of both")


async def test_waiting_for_a_call_keeps_the_slot_that_its_caller_has(world: World) -> None:
    handle = await world.serve("hanging", Hanging)

    async def parent() -> Any:
        return await handle.remote()

    parent_handle = await world.serve("parent", parent, limit=1)
    first, second = parent_handle.remote(), parent_handle.remote()
    hanging = world.servers["hanging"].user_code.instance
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    await asyncio.sleep(0.01)
    assert hanging.entered == 1
    hanging.go_on.set()
    assert [await first, await second] == [None, None]


async def test_waiting_for_an_argument_keeps_no_slot(world: World) -> None:
    hanging, handle = await world.serve("hanging", Hanging), await world.serve("echo", echo, limit=1)
    waiting = handle.remote(hanging.remote("late"))
    assert await handle.remote("others are served") == "others are served"
    assert not waiting.settled
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await waiting == "late"


async def test_a_call_that_nobody_awaits_runs_to_its_end(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    hanging.go_on.set()
    await wait_until(lambda: not world.servers["hanging"].admission.taken, within_s=5, what="its end")
    assert hanging.cancelled == 0


async def test_an_error_of_a_call_further_down_is_of_both_types(world: World) -> None:
    inner = await world.serve("hanging", Hanging, limit=1, max_queued_requests=0)

    async def middle() -> Any:
        running = inner.remote()
        try:
            return await inner.remote()
        finally:
            running.cancel()

    handle = await world.serve("middle", middle)
    with pytest.raises(BackPressureError) as caught:
        await handle.remote()
    assert isinstance(caught.value, RemoteError)
    assert caught.value.status_code == 503
