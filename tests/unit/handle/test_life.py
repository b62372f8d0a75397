"""From a handle's first use to its end."""

import asyncio
import pickle
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from tests.unit.handle.worlds import Hanging, World, echo
from tests.waiting import wait_until


async def test_init_comes_once_and_learns_of_the_replicas(world: World) -> None:
    handle = await world.serve("echo", echo)
    assert not handle.running_replicas_populated()
    handle._init(_prefer_local_routing=True, _source="test")
    await wait_until(handle.running_replicas_populated, within_s=5, what="the replicas")
    with pytest.raises(RuntimeError, match="once and before its first call"):
        handle._init()
    assert await handle.remote(1) == 1


async def test_init_after_a_call_is_a_runtime_error(world: World) -> None:
    handle = await world.serve("echo", echo)
    await handle.remote(1)
    with pytest.raises(RuntimeError, match="once and before its first call"):
        handle.options(session_id="a")._init()
    handle = DeploymentHandle("echo", "shop")
    handle._init()


async def test_an_unknown_init_option_is_a_type_error(world: World) -> None:
    with pytest.raises(TypeError, match=r"'_prefer_local_routng' of _init.*Did you mean '_prefer_local_routing'"):
        DeploymentHandle("echo", "shop")._init(_prefer_local_routng=True)


async def test_a_handle_that_was_shut_down_is_unusable_and_so_are_its_copies(world: World) -> None:
    handle = await world.serve("echo", echo)
    copy = handle.other
    await handle.remote(1)
    assert handle.is_initialized
    await handle.shutdown_async()
    assert not handle.is_initialized
    for each in (handle, copy, handle.options(session_id="a")):
        with pytest.raises(RuntimeError, match="was shut down"):
            each.remote(1)
    with pytest.raises(RuntimeError, match="was shut down"):
        handle.broadcast("__call__")
    with pytest.raises(RuntimeError, match="was shut down"):
        handle.choose_replica()
    assert await DeploymentHandle[Any]("echo", "shop").remote(2) == 2


async def test_the_router_is_closed_with_the_last_handle_that_uses_it(world: World) -> None:
    first = await world.serve("echo", echo)
    second = DeploymentHandle[Any]("echo", "shop")
    assert [await first.remote(1), await second.remote(2)] == [1, 2]
    await first.shutdown_async()
    assert second.running_replicas_populated()
    second.shutdown()
    await wait_until(lambda: not world.servers["echo"].callers, within_s=5, what="a closed connection")
    assert not second.running_replicas_populated()
    assert world.controller.unsubscribed == ["replicas/shop/echo"]


async def test_a_handle_that_nobody_has_any_more_does_not_keep_the_router(world: World) -> None:
    first = await world.serve("echo", echo)
    assert await DeploymentHandle[Any]("echo", "shop").remote(1) == 1
    assert await first.remote(1) == 1
    await first.shutdown_async()
    await wait_until(lambda: not world.servers["echo"].callers, within_s=5, what="a closed connection")


async def test_what_was_sent_before_a_shutdown_is_answered(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    hanging = world.servers["hanging"].user_code.instance
    response = handle.remote("answered")
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    await handle.shutdown_async()
    hanging.go_on.set()
    assert await response == "answered"


async def test_handles_travel_with_their_options_and_find_their_own_router(world: World) -> None:
    handle = (await world.serve("echo", echo)).options(session_id="a", multiplexed_model_id="m").predict
    await handle.shutdown_async()
    other = pickle.loads(pickle.dumps(handle))
    assert other == handle
    assert hash(other) == hash(handle)
    assert other.options(method_name="__call__")._options.session_id == "a"
    assert await other.options(method_name="__call__").remote(1) == 1


async def test_handles_by_the_same_name_share_their_router(world: World) -> None:
    handles = [await world.serve("echo", echo), *(DeploymentHandle[Any]("echo", "shop") for _ in range(200))]
    await asyncio.gather(*(each.remote(1) for each in handles))
    assert len(world.servers["echo"].callers) == 1
