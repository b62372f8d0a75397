"""Calls that a request makes: what becomes of them when it is cancelled, and when it is over."""

import asyncio
import threading
from contextvars import Context
from typing import Any

import pytest

from salver.handle import DeploymentHandle, DeploymentResponse
from salver.handle.request_context import current_request
from salver.schema.errors import RequestCancelledError
from salver.schema.ids import DeploymentID
from tests.unit.handle.worlds import Hanging, World, echo
from tests.waiting import wait_until


async def hanging(world: World, name: str = "child", limit: int = 5) -> tuple[DeploymentHandle[Any], Hanging]:
    """Start a deployment whose calls hang."""
    handle = await world.serve(name, Hanging, limit=limit)
    instance = world.servers[name].user_code.instance
    assert isinstance(instance, Hanging)
    return handle, instance


async def all_idle(world: World) -> None:
    """Wait until no replica works on anything."""
    servers = world.servers.values()
    await wait_until(lambda: not any(each.admission.taken for each in servers), within_s=5, what="idle replicas")


async def test_a_call_that_nobody_awaits_yet_is_cancelled_with_its_request(world: World) -> None:
    handle, child = await hanging(world)

    async def parent() -> None:
        handle.remote()
        await asyncio.Event().wait()

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    response.cancel()
    await wait_until(lambda: child.cancelled, within_s=5, what="its cancellation")
    await all_idle(world)


async def test_cancellation_reaches_the_calls_of_calls(world: World) -> None:
    handle, leaf = await hanging(world, "leaf")

    async def middle() -> None:
        handle.remote()
        await asyncio.Event().wait()

    middle_handle = await world.serve("middle", middle)

    async def top() -> None:
        middle_handle.remote()
        await middle_handle.remote()

    response = (await world.serve("top", top)).remote()
    await wait_until(lambda: leaf.entered == 2, within_s=5, what="the leaves")
    response.cancel()
    await wait_until(lambda: leaf.cancelled == 2, within_s=5, what="their cancellation")
    await all_idle(world)


async def test_a_thread_that_blocks_on_a_call_wakes_when_its_request_is_cancelled(world: World) -> None:
    handle, child = await hanging(world)
    raised: list[BaseException] = []

    def parent() -> None:
        try:
            handle.remote().result(timeout_s=30)
        except BaseException as error:
            raised.append(error)
            raise

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    response.cancel()
    await wait_until(lambda: raised, within_s=5, what="the thread")
    assert isinstance(raised[0], RequestCancelledError)
    await wait_until(lambda: child.cancelled, within_s=5, what="the cancellation of the child")
    await all_idle(world)


async def test_a_thread_of_a_cancelled_request_makes_no_more_calls(world: World) -> None:
    handle, child = await hanging(world)
    entered, go_on, raised = threading.Event(), threading.Event(), []

    def parent() -> None:
        entered.set()
        go_on.wait(10)
        try:
            handle.remote().result(timeout_s=30)
        except RequestCancelledError as error:
            raised.append(error)

    response = (await world.serve("parent", parent)).remote()
    await wait_until(entered.is_set, within_s=5, what="the thread")
    response.cancel()
    server = world.servers["parent"]
    context = next(iter(next(iter(server.callers))._contexts.values()))
    await wait_until(lambda: context.is_cancelled, within_s=5, what="the cancellation")
    go_on.set()
    await wait_until(lambda: raised, within_s=5, what="the end of the thread")
    await all_idle(world)
    assert child.entered == 0


async def test_a_call_that_waits_for_a_replica_leaves_the_queue_with_its_request(world: World) -> None:
    handle, child = await hanging(world, limit=1)

    async def parent() -> None:
        handle.remote()
        handle.remote()
        await asyncio.Event().wait()

    response = (await world.serve("parent", parent)).remote()
    router = world.routers.get(DeploymentID("child", "shop"))
    await wait_until(lambda: router.num_waiting == 1, within_s=5, what="the second call")
    response.cancel()
    await all_idle(world)
    assert (child.entered, router.num_waiting) == (1, 0)


async def test_a_call_whose_argument_is_another_call_is_cancelled_with_its_request(world: World) -> None:
    handle, child = await hanging(world)

    async def parent() -> None:
        handle.remote(handle.remote())
        await asyncio.Event().wait()

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    response.cancel()
    await all_idle(world)
    assert child.entered == 1


async def test_a_shield_protects_a_coroutine_and_not_a_call(world: World) -> None:
    handle, child = await hanging(world)
    seen: list[str] = []

    async def inner(response: DeploymentResponse[Any]) -> None:
        try:
            await response
        except RequestCancelledError:
            seen.append("inner")

    async def parent() -> None:
        response = handle.remote()
        try:
            await asyncio.shield(inner(response))
        except asyncio.CancelledError:
            seen.append("outer")
            raise

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    response.cancel()
    await wait_until(lambda: child.cancelled and len(seen) == 2, within_s=5, what="the cancellation")
    assert sorted(seen) == ["inner", "outer"]


@pytest.mark.parametrize("how", ["gather", "wait_for", "group in wait_for"])
async def test_tasks_of_a_cancelled_request_see_that_they_are_cancelled_and_not_that_a_call_was(
    world: World, how: str
) -> None:
    handle, child = await hanging(world)
    seen: list[type[BaseException]] = []

    async def ask() -> None:
        try:
            await handle.remote()
        except BaseException as error:
            seen.append(type(error))
            raise

    async def ask_in_a_group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())

    async def parent() -> None:
        if how == "gather":
            await asyncio.gather(ask(), ask())
        elif how == "wait_for":
            await asyncio.wait_for(ask(), timeout=30)
        else:
            await asyncio.wait_for(ask_in_a_group(), timeout=30)

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    response.cancel()
    await all_idle(world)
    assert set(seen) == {asyncio.CancelledError}


async def test_a_call_goes_on_when_its_request_has_ended(world: World) -> None:
    handle, child = await hanging(world)
    left: list[DeploymentResponse[Any]] = []

    async def parent() -> str:
        left.append(handle.remote("late"))
        return "done"

    response = (await world.serve("parent", parent)).remote()
    assert await response == "done"
    response.cancel()
    await wait_until(lambda: child.entered, within_s=5, what="the child")
    child.go_on.set()
    assert await left[0] == "late"
    assert child.cancelled == 0


async def test_a_cancelled_request_makes_no_more_calls_but_outside_of_its_context(world: World) -> None:
    handle = await world.serve("echo", echo)
    seen: list[Any] = []

    async def parent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                seen.append(await handle.remote(1))
            except RequestCancelledError as error:
                seen.append(error.request_id)
            seen.append(await Context().run(handle.remote, 2))

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: world.servers["parent"].admission.taken, within_s=5, what="the parent")
    await asyncio.sleep(0)
    response.cancel()
    await wait_until(lambda: len(seen) == 2, within_s=5, what="both calls")
    assert seen == [response.request_id, 2]


async def test_what_a_cancelled_request_leaves_running_may_call(world: World) -> None:
    handle = await world.serve("echo", echo)
    go_on, seen = asyncio.Event(), []

    async def worker() -> None:
        await go_on.wait()
        seen.append(await handle.remote("from the worker"))

    async def parent() -> None:
        world.tasks.start(worker(), name="worker")
        await asyncio.Event().wait()

    response = (await world.serve("parent", parent)).remote()
    await wait_until(lambda: len(world.tasks) and world.servers["parent"].admission.taken, within_s=5, what="a start")
    await asyncio.sleep(0)
    response.cancel()
    await all_idle(world)
    go_on.set()
    await wait_until(lambda: seen, within_s=5, what="the worker's call")
    assert seen == ["from the worker"]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_settled_calls_are_forgotten(world: World, in_thread: bool) -> None:
    handle = await world.serve("echo", echo)

    async def in_loop() -> int:
        for number in range(3):
            await handle.remote(number)
        await asyncio.sleep(0)
        return len(current_request().children)

    def blocking() -> int:
        for number in range(3):
            handle.remote(number).result(timeout_s=5)
        return len(current_request().children)

    counts = await world.serve("parent", blocking if in_thread else in_loop)
    assert await counts.remote() == 0


async def test_calls_outside_of_requests_belong_to_nobody(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = handle.remote(1)
    assert not current_request().children
    assert await response == 1
