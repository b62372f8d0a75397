"""Handle calls from end to end in one process: results, errors, arguments, context."""

import asyncio
import threading
from typing import Any

import pytest

from salver.handle import DeploymentHandle, DeploymentResponse
from salver.handle.request_context import RequestContext, current_request, enter_request, leave_request, request_ids
from salver.schema.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    NoSuchMethod,
    RemoteError,
    ReplicaDiedError,
    RequestCancelledError,
    SalverError,
)
from salver.schema.ids import DeploymentID
from salver.schema.topics import Replicas, replicas_topic
from tests.unit.handle.worlds import CodeError, Hanging, World, echo, fail, in_thread
from tests.waiting import wait_until


async def test_a_call_returns_its_result_as_often_as_it_is_awaited(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = handle.remote(1, two=2)
    assert await response == [1, {"two": 2}]
    assert await response == [1, {"two": 2}]


async def test_a_method_is_called_by_its_name(world: World) -> None:
    class Model:
        def __init__(self) -> None:
            self.calls = 0

        async def predict(self, number: int) -> int:
            return number + 1

        def _hidden(self) -> str:
            return "found"

    handle = await world.serve("model", Model)
    assert await handle.predict.remote(1) == 2
    assert await handle._hidden.remote() == "found"
    assert await handle.options(method_name="predict").remote(2) == 3


async def test_a_call_begins_without_being_awaited(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    hanging.go_on.set()
    await response


async def test_many_calls_at_once_are_all_answered(world: World) -> None:
    handle = await world.serve("echo", echo, limit=3)
    assert await asyncio.gather(*(handle.remote(number) for number in range(200))) == list(range(200))


async def test_a_thread_blocks_for_the_result(world: World) -> None:
    handle = await world.serve("echo", echo)
    assert await in_thread(lambda: handle.remote(7).result(timeout_s=5)) == 7


async def test_a_response_of_the_loop_can_be_waited_for_in_a_thread(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = handle.remote(7)
    assert await in_thread(lambda: response.result(timeout_s=5)) == 7


async def test_a_response_of_a_thread_can_be_awaited_in_the_loop(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = await in_thread(lambda: handle.remote(7))
    assert await response == 7


async def test_another_loop_may_await_a_response(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = handle.remote(7)

    async def wait() -> Any:
        return [await response, await handle.remote(8)]

    assert await in_thread(lambda: asyncio.run(wait())) == [7, 8]


async def test_result_may_not_block_a_loop(world: World) -> None:
    handle = await world.serve("echo", echo)
    with pytest.raises(RuntimeError, match=r"Sync methods should not be called from within an `asyncio` event loop"):
        handle.remote(7).result()


async def test_what_the_code_raised_is_raised_as_its_own_type_with_the_remote_traceback(world: World) -> None:
    handle = await world.serve("fail", fail)
    response = handle.remote()
    for _ in range(2):
        with pytest.raises(CodeError) as caught:
            await response
        assert isinstance(caught.value, RemoteError)
        assert caught.value.code == 7
        assert "in fail" in str(caught.value)


async def test_an_error_keeps_its_type_through_two_calls(world: World) -> None:
    inner = await world.serve("inner", fail)

    async def middle() -> Any:
        return await inner.remote()

    outer = await world.serve("outer", middle)
    with pytest.raises(CodeError) as caught:
        await outer.remote()
    assert isinstance(caught.value, RemoteError)


async def test_stop_iteration_does_not_hang_its_caller(world: World) -> None:
    def stop() -> None:
        next(iter(()))

    handle = await world.serve("stop", stop)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(handle.remote(), timeout=5)


async def test_a_missing_method_is_said_plainly(world: World) -> None:
    handle = await world.serve("echo", echo)
    with pytest.raises(NoSuchMethod, match=r"^Tried to call a method 'nope' that does not exist\. Available methods"):
        await handle.nope.remote()


async def test_an_argument_that_cannot_be_pickled_fails_where_the_call_is_made(world: World) -> None:
    handle = await world.serve("echo", echo)
    with pytest.raises(TypeError, match=r"Argument 1 \(lock\) of a call of Deployment\(name='echo'.*cannot be pickled"):
        handle.remote(1, threading.Lock())
    with pytest.raises(TypeError, match=r"Argument 'door' \(list\)"):
        handle.remote(1, door=[threading.Lock()])


async def test_a_result_that_cannot_be_rebuilt_here_is_an_error(world: World) -> None:
    handle = await world.serve("trap", trap)
    with pytest.raises(LookupError, match="cannot be rebuilt"):
        await handle.remote()


class Trap:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    """Fail."""
    raise LookupError("cannot be rebuilt")


async def trap() -> Trap:
    """Return what cannot be rebuilt."""
    return Trap()


async def test_a_full_queue_refuses_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    handle = await world.serve("hanging", Hanging, limit=1, max_queued_requests=1)
    responses = [handle.remote(number) for number in range(3)]
    with pytest.raises(BackPressureError):
        await responses[2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await asyncio.gather(*responses[:2]) == [0, 1]


async def test_an_unavailable_deployment_says_why(world: World) -> None:
    deployment = DeploymentID("gone", "shop")
    world.controller.publish(replicas_topic(deployment), Replicas(unavailable="it was deleted"))
    with pytest.raises(DeploymentUnavailableError, match="is unavailable because it was deleted"):
        await DeploymentHandle("gone", "shop").remote()


async def test_a_call_whose_replica_dies_is_not_repeated(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    world.network.ends[-1].cut()
    with pytest.raises(ReplicaDiedError, match=f"died while it was working on request {response.request_id}"):
        await response
    assert hanging.entered == 1


async def test_a_response_that_nobody_awaits_is_no_error(world: World) -> None:
    handle = await world.serve("fail", fail)
    handle.remote()
    with pytest.raises(CodeError):
        await handle.remote()


async def test_responses_among_the_arguments_become_their_results(world: World) -> None:
    handle = await world.serve("echo", echo)
    first, second = handle.remote(1), handle.remote(2)
    assert await handle.remote(first, 0, named=second) == [1, 0, {"named": 2}]


async def test_a_chain_of_calls_can_be_made_from_a_thread(world: World) -> None:
    handle = await world.serve("echo", echo)
    assert await in_thread(lambda: handle.remote(handle.remote(handle.remote(3))).result(timeout_s=5)) == 3


async def test_the_error_of_an_argument_is_the_error_of_the_call(world: World) -> None:
    failing, handle = await world.serve("fail", fail), await world.serve("echo", echo)
    with pytest.raises(CodeError):
        await handle.remote(failing.remote())


async def test_a_call_that_is_cancelled_while_its_arguments_are_on_their_way_disturbs_nobody(world: World) -> None:
    handle, hanging = await world.serve("echo", echo), await world.serve("hanging", Hanging)
    await handle.remote(0)
    argument = hanging.remote("argument")
    response = handle.remote(argument)
    await asyncio.sleep(0)
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    router = world.routers.get(DeploymentID("echo", "shop"))
    assert router.num_waiting == 0
    assert await handle.remote("others are served") == "others are served"
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await argument == "argument"


async def test_a_thread_may_cancel_a_call_whose_arguments_are_on_their_way(world: World) -> None:
    handle, hanging = await world.serve("echo", echo), await world.serve("hanging", Hanging)

    def call() -> DeploymentResponse[Any]:
        argument = hanging.remote("argument")
        response = handle.remote(argument)
        response.cancel()
        with pytest.raises(RequestCancelledError):
            response.result(timeout_s=5)
        return argument

    argument = await in_thread(call)
    assert await handle.remote(1) == 1
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await argument == "argument"


async def test_a_cancelled_argument_fails_the_call(world: World) -> None:
    handle, hanging = await world.serve("echo", echo), await world.serve("hanging", Hanging)
    argument = hanging.remote()
    response = handle.remote(argument)
    await asyncio.sleep(0)
    argument.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    assert not response.cancelled()


async def test_a_call_within_a_request_has_its_id_and_route_and_no_model_id(world: World) -> None:
    async def inner() -> Any:
        return current_request()

    inner_handle = await world.serve("inner", inner)

    async def outer() -> Any:
        return [current_request(), await inner_handle.remote()]

    outer_handle = await world.serve("outer", outer)
    token = enter_request(RequestContext("/shop", "the-request", "shop"))
    try:
        response = outer_handle.options(multiplexed_model_id="m1", session_id="s1").remote()
    finally:
        leave_request(token)
    here, below = await response
    assert (here.request_id, here.route, here.multiplexed_model_id, here.session_id) == (
        "the-request",
        "/shop",
        "m1",
        "s1",
    )
    assert (below.request_id, below.route, below.multiplexed_model_id, below.session_id) == (
        "the-request",
        "/shop",
        "",
        "",
    )
    assert response.request_id == "the-request"


async def test_calls_outside_of_a_request_have_ids_of_their_own(world: World) -> None:
    handle = await world.serve("echo", echo)
    responses = [handle.remote(1), handle.remote(1)]
    assert responses[0].request_id != responses[1].request_id
    await asyncio.gather(*responses)


def test_request_ids_do_not_repeat_after_a_fork() -> None:
    before = request_ids.new()
    request_ids.renew()
    assert request_ids.new()[:16] != before[:16]


async def test_calls_have_the_priority_of_their_request_unless_they_say_their_own(world: World) -> None:
    async def inner() -> int:
        return current_request().urgency

    inner_handle = await world.serve("inner", inner)

    async def outer() -> tuple[int, int, int]:
        return (
            current_request().urgency,
            await inner_handle.remote(),
            await inner_handle.options(priority=7).remote(),
        )

    outer_handle = await world.serve("outer", outer)
    assert await outer_handle.remote() == (3, 3, 7)
    assert await outer_handle.options(priority=1).remote() == (1, 1, 7)


async def test_a_wrong_priority_is_refused_where_it_is_given(world: World) -> None:
    handle = await world.serve("echo", echo)
    with pytest.raises(SalverError, match="expected an integer from 0, the most urgent, to 7"):
        handle.options(priority=9)
