"""Calls that are cancelled, by whom and when."""

import asyncio
import gc
from typing import Any

import pytest

from salver.schema.errors import (
    RemoteError,
    RequestCancelledError,
)
from salver.schema.ids import DeploymentID
from tests.unit.handle.worlds import Hanging, World, in_thread
from tests.waiting import wait_until


async def test_a_cancelled_call_is_cancelled_on_its_replica(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    assert not response.cancelled()
    response.cancel()
    response.cancel()
    assert response.cancelled()
    for _ in range(2):
        with pytest.raises(RequestCancelledError, match=f"Request {response.request_id} was cancelled"):
            await response
    await wait_until(lambda: hanging.cancelled, within_s=5, what="the cancellation")


async def test_a_cancelled_call_that_waits_never_reaches_a_replica(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    hanging = world.servers["hanging"].user_code.instance
    first, second, third = [handle.remote(number) for number in range(3)]
    second.cancel()
    hanging.go_on.set()
    assert [await first, await third] == [0, 2]
    assert hanging.entered == 2


async def test_a_call_that_a_thread_cancels_is_cancelled(world: World) -> None:
    handle = await world.serve("hanging", Hanging)

    def call_and_cancel() -> None:
        response = handle.remote()
        response.cancel()
        with pytest.raises(RequestCancelledError):
            response.result(timeout_s=5)

    await in_thread(call_and_cancel)
    router = world.routers.get(DeploymentID("hanging", "shop"))
    assert router.num_waiting == 0


async def test_a_result_that_takes_too_long_cancels_its_call(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance

    def call() -> None:
        with pytest.raises(TimeoutError, match=r"No answer from Deployment\(name='hanging', app='shop'\) within 0.05s"):
            handle.remote().result(timeout_s=0.05)

    await in_thread(call)
    await wait_until(lambda: hanging.cancelled == hanging.entered, within_s=5, what="the cancellation")


async def test_a_result_that_takes_too_long_can_be_waited_for_again(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    loop = asyncio.get_running_loop()

    def call() -> Any:
        response = handle.remote("late")
        with pytest.raises(TimeoutError):
            response.result(timeout_s=0.01, cancel_on_timeout=False)
        loop.call_soon_threadsafe(world.servers["hanging"].user_code.instance.go_on.set)
        return response.result(timeout_s=5)

    assert await in_thread(call) == "late"


async def test_a_timeout_of_the_users_is_no_timeout_of_ours(world: World) -> None:
    async def too_slow() -> None:
        raise TimeoutError("the users own")

    handle = await world.serve("slow", too_slow)

    def call() -> None:
        with pytest.raises(TimeoutError) as caught:
            handle.remote().result(timeout_s=5)
        assert isinstance(caught.value, RemoteError)

    await in_thread(call)


async def test_a_task_that_is_cancelled_while_it_waits_cancels_the_call(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response, timeout=0.01)
    await wait_until(lambda: hanging.cancelled, within_s=5, what="the cancellation")


async def test_another_task_that_waits_hears_of_the_cancelled_call_and_is_not_cancelled_itself(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    response = handle.remote()

    async def wait() -> Any:
        return await response

    tasks = [world.tasks.start(wait(), name=name) for name in ("first", "second")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(RequestCancelledError):
        await tasks[1]
    assert tasks[0].cancelled()
    assert not tasks[1].cancelled()
    world.failed.clear()


async def test_what_becomes_of_an_argument_is_nobodys_error_once_its_call_is_cancelled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    argument = handle.remote()
    response = handle.remote(argument)
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    argument.cancel()
    with pytest.raises(RequestCancelledError):
        await argument
    await wait_until(lambda: hanging.cancelled, within_s=5, what="the cancellation")
    del argument, response
    gc.collect()
    assert "never retrieved" not in caplog.text
