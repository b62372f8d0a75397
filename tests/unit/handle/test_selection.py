"""Choosing a replica, a slot there, and the one call that takes it."""

import asyncio
import json
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from salver.handle.outgoing import Description, Hints
from salver.handle.selection import ReplicaSelection, Reservation
from salver.schema.errors import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from salver.transport.codec import dumps
from salver.transport.wire import CallHead
from tests.unit.handle.doubles import Net, Request, Sequence
from tests.unit.handle.worlds import Hanging, World, echo, in_thread
from tests.waiting import wait_until

HEAD = CallHead("predict", "request", "/shop", "shop", "m", None, "s", 1)


def taken(world: World, name: str) -> int:
    """Return how many slots of a replica are used or held."""
    return world.servers[name].admission.taken


async def until_free(world: World, name: str) -> None:
    await wait_until(lambda: taken(world, name) == 0, within_s=5, what="a free replica")


async def test_choose_replica_says_all_that_is_known_of_it(world: World) -> None:
    (entry,) = await world.serve_several("echo", echo, 1)
    async with DeploymentHandle[Any]("echo", "shop").choose_replica() as selection:
        assert isinstance(selection, ReplicaSelection)
        assert selection.to_dict() == {
            "replica_id": str(entry.replica),
            "address": "echo-1",
            "node_id": "node",
            "node_ip": None,
            "port": None,
            "availability_zone": None,
            "replica_metadata": {},
        }
        assert json.loads(json.dumps(selection.to_dict())) == selection.to_dict()


async def test_choose_replica_reserves_a_slot_that_is_released_if_it_is_not_dispatched_to(world: World) -> None:
    handle = await world.serve("echo", echo, limit=1)
    async with handle.choose_replica():
        assert taken(world, "echo") == 1
        waiting = handle.remote(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(waiting)), 0.01)
    assert await asyncio.wait_for(waiting, 5) == 1
    await until_free(world, "echo")


async def test_dispatch_sends_to_the_chosen_replica(world: World) -> None:
    await world.serve_several("hanging", Hanging, 3)
    handle = DeploymentHandle[Any]("hanging", "shop")
    async with handle.choose_replica() as selection:
        response = handle.dispatch(selection, "there")
        server = world.servers[selection.address]
        await wait_until(lambda: server.user_code.instance.entered, within_s=5, what="the call")
        assert taken(world, selection.address) == 1, "the call has the slot that was reserved"
        server.user_code.instance.go_on.set()
        assert await response == "there"
    await until_free(world, selection.address)


async def test_a_call_that_was_dispatched_outlives_the_context(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    async with handle.choose_replica() as selection:
        response = handle.dispatch(selection, 1)
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await response == 1
    await until_free(world, "hanging")


async def test_methods_are_dispatched_to_by_name(world: World) -> None:
    class Model:
        async def predict(self, number: int) -> int:
            return number + 1

    handle = await world.serve("model", Model)
    async with handle.choose_replica(1) as selection:
        assert await handle.predict.dispatch(selection, 1) == 2


async def test_a_selection_of_another_deployment_is_a_value_error(world: World) -> None:
    other = await world.serve("other", echo)
    handle = await world.serve("echo", echo)
    async with other.choose_replica() as selection:
        with pytest.raises(ValueError, match=r"replica of Deployment\(name='other', app='shop'\)"):
            handle.dispatch(selection, 1)
    await until_free(world, "other")


async def test_a_second_dispatch_is_a_runtime_error(world: World) -> None:
    handle = await world.serve("echo", echo)
    async with handle.choose_replica() as selection:
        assert await handle.dispatch(selection, 1) == 1
        with pytest.raises(RuntimeError, match="once"):
            handle.dispatch(selection, 2)


async def test_a_dispatch_after_the_context_is_a_runtime_error(world: World) -> None:
    handle = await world.serve("echo", echo)
    async with handle.choose_replica() as selection:
        pass
    with pytest.raises(RuntimeError, match="was left"):
        handle.dispatch(selection, 1)


async def test_a_dispatch_to_a_replica_that_is_gone_raises_replica_unavailable(world: World) -> None:
    handle = await world.serve("echo", echo)
    async with handle.choose_replica() as selection:
        world.servers["echo"].close()
        await wait_until(lambda: not world.servers["echo"].callers, within_s=5, what="the end of the replica")
        with pytest.raises(ReplicaUnavailableError, match="shop#echo#1 is unavailable"):
            await handle.dispatch(selection, 1)


async def test_a_slot_is_given_back_when_its_holder_dies(world: World) -> None:
    handle = await world.serve("echo", echo)
    async with handle.choose_replica() as selection:
        assert taken(world, "echo") == 1
        for end in world.network.ends:
            end.abort()
        await until_free(world, "echo")
        with pytest.raises(ReplicaUnavailableError):
            await handle.dispatch(selection, 1)


async def test_choosing_waits_for_room_and_goes_on_when_there_is_some(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    hanging = world.servers["hanging"].user_code.instance
    busy = handle.remote()
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    choice = handle.choose_replica()
    choosing = asyncio.ensure_future(choice.__aenter__())
    await wait_until(handle.running_replicas_populated, within_s=5, what="a router")
    assert not choosing.done()
    hanging.go_on.set()
    selection = await asyncio.wait_for(choosing, 5)
    await busy
    assert await handle.dispatch(selection, 2) == 2
    await choice.__aexit__(None, None, None)


async def test_a_wish_for_a_slot_that_a_dying_replica_took_with_it_goes_to_another() -> None:
    net = Net()
    first, second = net.replica("a"), net.replica("b")
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    reservation = Reservation(router, HEAD, asyncio.get_running_loop().create_future())
    router.route(reservation)
    assert (first.admission.taken, reservation.granted.done()) == (0, False)
    net.kill(first)
    net.settle()
    assert reservation.granted.result().entry == second.entry
    net.kill(second)
    call = Request()
    reservation.route(call)
    assert isinstance(call.error, ReplicaUnavailableError)


async def test_choosing_counts_as_waiting(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1, max_queued_requests=1)
    hanging = world.servers["hanging"].user_code.instance
    calls = [handle.remote() for _ in range(2)]
    await wait_until(lambda: hanging.entered, within_s=5, what="the call")
    with pytest.raises(BackPressureError):
        await handle.choose_replica().__aenter__()
    hanging.go_on.set()
    await asyncio.gather(*calls)


async def test_choosing_where_no_replica_will_come_fails(world: World) -> None:
    handle = world.tell("gone", unavailable="its application was deleted")
    with pytest.raises(DeploymentUnavailableError):
        await handle.choose_replica().__aenter__()


async def test_choosing_that_is_cancelled_leaves_no_slot_behind(world: World) -> None:
    handle = await world.serve("echo", echo, limit=1)
    for steps in range(12):
        choosing = asyncio.ensure_future(handle.choose_replica().__aenter__())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not choosing.done():
            choosing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await choosing
            await until_free(world, "echo")
            assert await asyncio.wait_for(handle.remote(steps), 5) == steps


async def test_a_replica_is_chosen_from_another_event_loop(world: World) -> None:
    handle = await world.serve("echo", echo, limit=1)

    async def elsewhere() -> Any:
        async with handle.choose_replica() as selection:
            return await handle.dispatch(selection, "from a thread")

    assert await in_thread(lambda: asyncio.run(elsewhere())) == "from a thread"
    await until_free(world, "echo")


async def test_a_slot_whose_call_has_a_failed_argument_is_given_back(world: World) -> None:
    async def fail() -> None:
        raise ValueError("no")

    failing = await world.serve("failing", fail)
    handle = await world.serve("echo", echo, limit=1)
    async with handle.choose_replica() as selection:
        with pytest.raises(ValueError, match="no"):
            await handle.dispatch(selection, failing.remote())
    await until_free(world, "echo")


async def test_a_dispatched_call_can_be_cancelled(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    hanging = world.servers["hanging"].user_code.instance
    async with handle.choose_replica() as selection:
        response = handle.dispatch(selection)
        await wait_until(lambda: hanging.entered, within_s=5, what="the call")
        response.cancel()
        await wait_until(lambda: hanging.cancelled, within_s=5, what="its end")
    await until_free(world, "hanging")


async def test_routers_see_what_the_slot_is_for() -> None:
    granted = asyncio.get_running_loop().create_future()
    reservation = Reservation(Net().router(), HEAD, granted, dumps((("text",), {"a": 1})))
    assert reservation.hints == Hints("m", "s", 1)
    assert reservation.describe() == Description("request", "predict", "/shop")
    assert reservation.arguments() == (("text",), {"a": 1})
    assert Reservation(Net().router(), HEAD, granted).arguments() == ((), {})
