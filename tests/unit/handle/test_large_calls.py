"""Handle calls with large arguments and results: the refused, cancelled and lost ones give their memory back, too."""

import asyncio
import errno
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from salver.exceptions import RequestCancelledError
from salver.schema.errors import BackPressureError, DeploymentUnavailableError, ReplicaDiedError
from salver.schema.ids import DeploymentID
from salver.schema.topics import Replicas, replicas_topic
from salver.transport.mappings import Mapping
from salver.transport.segments import process_pool
from tests.unit.handle.worlds import CodeError, Hanging, World, echo, fail, in_thread
from tests.unit.transport.large import files_of_segments, maps_of_segments, settle
from tests.waiting import wait_until

SIZE = 100_000


@pytest.fixture(autouse=True)
async def nothing_left(world: World) -> AsyncIterator[None]:
    """Nothing is lent at the end of a test, and nothing is left once its connections are cut."""
    yield
    # A test that caught an error is in a cycle with it, and has its results.
    gc.collect()
    await settle()
    lent = [each.num_lent for each in process_pool()._readers if hasattr(each, "num_lent")]
    assert sum(lent) == 0
    for end in world.network.ends:
        end.cut()
    await settle()
    assert process_pool().num_watched == 0
    assert process_pool().num_segments == 0
    assert files_of_segments() == []
    assert maps_of_segments() == []


def numbers(value: float = 1.0) -> Any:
    return np.full(SIZE, value)


async def test_arguments_and_results_arrive(world: World) -> None:
    handle = await world.serve("echo", echo)
    for value in range(5):
        result = await handle.remote(numbers(value), name={"deep": [numbers(value + 1), b"x" * SIZE]})
        assert (result[0] == value).all()
        assert (result[1]["name"]["deep"][0] == value + 1).all()
        assert result[1]["name"]["deep"][1] == b"x" * SIZE
        result[0][:] = -1


async def test_a_thread_gets_a_large_result_and_its_memory_goes_with_it(world: World) -> None:
    handle = await world.serve("echo", echo)

    def call() -> float:
        return float(handle.remote(numbers(2)).result(timeout_s=5).sum())

    for _ in range(5):
        assert await in_thread(call) == 2 * SIZE
    await settle()
    assert process_pool().num_segments <= 4


async def test_calls_one_after_the_other_use_one_segment(world: World) -> None:
    async def first(array: Any) -> float:
        return float(array[0])

    handle = await world.serve("first", first)
    for value in range(10):
        assert await handle.remote(numbers(value)) == value
        assert process_pool().num_segments == 1


async def test_an_argument_is_what_it_was_when_the_call_was_made(world: World) -> None:
    handle = await world.serve("echo", echo)
    argument = numbers(1)
    response = handle.remote(argument)
    argument[:] = 2
    assert (await response == 1).all()


async def test_a_chain_passes_large_results_on(world: World) -> None:
    handle = await world.serve("echo", echo)
    assert (await handle.remote(handle.remote(handle.remote(numbers(3)))) == 3).all()


async def test_a_call_that_fails_gives_its_arguments_back(world: World) -> None:
    handle = await world.serve("fail", fail_with)
    with pytest.raises(CodeError):
        await handle.remote(numbers())


async def fail_with(_: Any) -> None:
    """Fail."""
    await fail()


async def test_refused_calls_wait_and_are_sent_again(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    hanging = world.servers["hanging"].user_code.instance
    responses = [handle.remote(numbers(value)) for value in range(4)]
    await wait_until(lambda: hanging.entered, within_s=5, what="the first call")
    hanging.go_on.set()
    for value, response in enumerate(responses):
        assert (await response == value).all()
    del response, responses


async def test_a_replica_that_refuses_gives_back_what_it_did_not_use(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    server = world.servers["hanging"]
    server.admission.change_limit(0)
    response = handle.remote(numbers(1))
    await settle()
    assert not response.settled
    server.admission.change_limit(1)
    server.user_code.instance.go_on.set()
    assert (await response == 1).all()


async def test_what_is_refused_by_the_caller_itself_leaves_nothing(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1, max_queued_requests=0)
    responses = [handle.remote(numbers(value)) for value in range(3)]
    for each in responses[1:]:
        with pytest.raises(BackPressureError):
            await each
    world.servers["hanging"].user_code.instance.go_on.set()
    assert (await responses[0] == 0).all()


async def test_an_unavailable_deployment_leaves_nothing(world: World) -> None:
    from salver.handle import DeploymentHandle

    world.controller.publish(replicas_topic(DeploymentID("gone", "shop")), Replicas(unavailable="it was deleted"))
    response = DeploymentHandle("gone", "shop").remote(numbers())
    with pytest.raises(DeploymentUnavailableError):
        await response
    assert process_pool().num_segments == 0


@pytest.mark.parametrize("ticks", range(8))
async def test_a_call_may_be_cancelled_at_any_moment(world: World, ticks: int) -> None:
    handle = await world.serve("echo", echo)
    await handle.remote(0)
    response = handle.remote(numbers())
    for _ in range(ticks):
        await asyncio.sleep(0)
    response.cancel()
    await settle()
    with suppress(RequestCancelledError):
        await response
    assert (await handle.remote(numbers(4)) == 4).all()


async def test_a_cancelled_call_that_runs_gives_its_arguments_back(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote(numbers())
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    response.cancel()
    await wait_until(lambda: hanging.cancelled, within_s=5, what="the cancellation")


async def test_a_lost_replica_loses_its_calls_and_no_memory(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote(numbers())
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    world.network.ends[-1].cut()
    with pytest.raises(ReplicaDiedError):
        await response


async def test_a_result_outlives_its_connection(world: World) -> None:
    handle = await world.serve("echo", echo)
    result = await handle.remote(numbers(6))
    world.network.ends[-1].cut()
    await settle()
    assert (result == 6).all()
    result[:] = 7


async def test_memory_that_neither_can_read_goes_by_socket_both_ways(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    handle = await world.serve("echo", echo, limit=2)
    responses = [handle.remote(numbers(value)) for value in range(6)]
    for value, response in enumerate(responses):
        result = await response
        assert (result == value).all()
        result[:] = 1


async def test_a_cancelled_call_that_could_not_be_read_is_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def note(value: Any) -> None:
        calls.append(value[0])

    handle = await world.serve("note", note)
    await handle.remote([0])

    def fail_to_map(*_: Any) -> Any:
        response.cancel()
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Mapping, "__init__", fail_to_map)
    response = handle.remote(numbers(5))
    with pytest.raises(RequestCancelledError):
        await response
    await settle()
    assert calls == [0]


async def test_many_calls_at_once_need_no_more_memory_than_is_in_use(world: World) -> None:
    handle = await world.serve("echo", echo, limit=4)
    for _ in range(3):
        responses = [handle.remote(numbers(value)) for value in range(60)]
        for value, response in enumerate(responses):
            assert (await response)[0] == value
        responses.clear()
        del response
        await settle()
    assert process_pool().num_segments <= 128
