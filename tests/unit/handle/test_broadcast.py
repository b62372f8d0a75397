"""One call to every replica: who is called, what comes back, and what of replicas that come and go."""

import asyncio
import threading
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from salver.schema.errors import (
    DeploymentUnavailableError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from tests.unit.handle.worlds import CodeError, Hanging, World, echo, in_thread
from tests.waiting import wait_until


class Numbered:
    """Knows how many were made before it."""

    made = 0

    def __init__(self) -> None:
        Numbered.made += 1
        self.number = Numbered.made
        self.greetings: list[str] = []

    async def greet(self, name: str) -> tuple[int, str]:
        """Return who greets whom."""
        self.greetings.append(name)
        return self.number, name

    async def fail_if(self, number: int) -> int:
        """Fail if it is meant."""
        if number == self.number:
            raise CodeError(7, "no")
        return self.number

    async def error(self) -> ValueError:
        """Return an error, as a value."""
        return ValueError("a value")


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    Numbered.made = 0


async def greeters(world: World, count: int = 3) -> DeploymentHandle[Any]:
    await world.serve_several("greeter", Numbered, count)
    return DeploymentHandle("greeter", "shop")


async def test_broadcast_calls_every_running_replica_and_results_come_in_their_order(world: World) -> None:
    handle = await greeters(world)
    response = handle.broadcast("greet", "Ada")
    assert await response.results_async(timeout_s=5) == [(1, "Ada"), (2, "Ada"), (3, "Ada")]
    assert await response.results_async() == [(1, "Ada"), (2, "Ada"), (3, "Ada")]


async def test_broadcast_results_block_a_thread_and_refuse_an_event_loop(world: World) -> None:
    handle = await greeters(world)
    response = handle.broadcast("greet", name="Ada")
    with pytest.raises(RuntimeError, match="Use `await response`"):
        response.results()
    assert await in_thread(lambda: handle.broadcast("greet", "Ada").results(timeout_s=5)) == [
        (1, "Ada"),
        (2, "Ada"),
        (3, "Ada"),
    ]


async def test_broadcast_raises_the_first_error_unless_errors_are_asked_for(world: World) -> None:
    handle = await greeters(world)
    response = handle.broadcast("fail_if", 2)
    with pytest.raises(CodeError):
        await response.results_async(timeout_s=5)
    first, error, last = await response.results_async(return_exceptions=True)
    assert (first, last) == (1, 3)
    assert isinstance(error, CodeError)


async def test_an_exception_that_a_replica_returns_is_a_result(world: World) -> None:
    handle = await greeters(world, 1)
    (value,) = await handle.broadcast("error").results_async(timeout_s=5)
    assert isinstance(value, ValueError)


async def test_a_broadcast_ignores_max_queued_requests_and_waits_for_room(world: World) -> None:
    entries = await world.serve_several("hanging", Hanging, 2, limit=1)
    handle = world.tell("hanging", *entries, max_queued_requests=1)
    busy = [handle.remote() for _ in range(3)]
    await wait_until(lambda: sum(_hanging(world, n).entered for n in (1, 2)) == 2, within_s=5, what="busy replicas")
    response = handle.broadcast("__call__", "done")
    for number in (1, 2):
        _hanging(world, number).go_on.set()
    assert await response.results_async(timeout_s=5) == ["done", "done"]
    assert await asyncio.gather(*busy) == [None, None, None]


def _hanging(world: World, number: int) -> Hanging:
    instance = world.servers[f"hanging-{number}"].user_code.instance
    assert isinstance(instance, Hanging)
    return instance


async def hanging_in_both(world: World) -> DeploymentHandle[Any]:
    await world.serve_several("hanging", Hanging, 2)
    return DeploymentHandle("hanging", "shop")


async def both_entered(world: World) -> None:
    await wait_until(lambda: all(_hanging(world, n).entered for n in (1, 2)), within_s=5, what="both calls")


async def test_a_replica_that_dies_meanwhile_has_its_error_in_its_place(world: World) -> None:
    handle = await hanging_in_both(world)
    response = handle.broadcast("__call__", "done")
    await both_entered(world)
    world.servers["hanging-1"].close()
    _hanging(world, 2).go_on.set()
    died, value = await response.results_async(timeout_s=5, return_exceptions=True)
    assert isinstance(died, ReplicaDiedError)
    assert value == "done"


async def test_a_replica_that_leaves_before_it_took_the_call_is_unavailable(world: World) -> None:
    entries = await world.serve_several("hanging", Hanging, 2, limit=1)
    handle = DeploymentHandle[Any]("hanging", "shop")
    busy = [handle.remote() for _ in range(2)]
    await both_entered(world)
    response = handle.broadcast("__call__", "done")
    await wait_until(
        lambda: all(len(world.servers[f"hanging-{n}"].callers) == 2 for n in (1, 2)), within_s=5, what="its connections"
    )
    world.tell("hanging", entries[1])
    _hanging(world, 2).go_on.set()
    gone, value = await response.results_async(timeout_s=5, return_exceptions=True)
    assert isinstance(gone, ReplicaUnavailableError)
    assert gone.replica_id == entries[0].replica
    assert value == "done"
    _hanging(world, 1).go_on.set()
    await asyncio.gather(*busy)


async def test_a_replica_that_joins_meanwhile_is_not_called(world: World) -> None:
    entries = await world.serve_several("hanging", Hanging, 2)
    handle = world.tell("hanging", entries[0])
    response = handle.broadcast("__call__", "done")
    await wait_until(lambda: _hanging(world, 1).entered, within_s=5, what="the call")
    world.tell("hanging", *entries)
    _hanging(world, 1).go_on.set()
    assert await response.results_async(timeout_s=5) == ["done"]
    assert not _hanging(world, 2).entered


async def test_a_broadcast_waits_for_the_first_replica_and_fails_where_none_comes(world: World) -> None:
    handle = world.tell("greeter")
    waiting = handle.broadcast("greet", "Ada")
    with pytest.raises(TimeoutError, match=r"Not all replicas answered within 0.01s"):
        await waiting.results_async(timeout_s=0.01, cancel_on_timeout=False)
    await world.serve_several("greeter", Numbered, 1)
    assert await waiting.results_async(timeout_s=5) == [(1, "Ada")]
    world.tell("greeter", unavailable="it failed to deploy")
    with pytest.raises(DeploymentUnavailableError, match="it failed to deploy"):
        await handle.broadcast("greet", "Ada").results_async(timeout_s=5)


@pytest.mark.parametrize("by_timeout", [False, True], ids=["cancel", "timeout"])
async def test_a_cancelled_broadcast_cancels_all_its_calls(world: World, by_timeout: bool) -> None:
    handle = await hanging_in_both(world)
    response = handle.broadcast("__call__")
    await both_entered(world)
    if by_timeout:
        with pytest.raises(TimeoutError):
            await in_thread(lambda: response.results(timeout_s=0.01))
    else:
        response.cancel()
    assert response.cancelled()
    with pytest.raises(RequestCancelledError):
        await response.results_async()
    with pytest.raises(RequestCancelledError):
        await in_thread(response.results)
    await wait_until(lambda: all(_hanging(world, n).cancelled for n in (1, 2)), within_s=5, what="the cancellations")


async def test_a_response_among_the_arguments_is_resolved_for_all(world: World) -> None:
    handle = await greeters(world)
    name = (await world.serve("echo", echo)).remote("Ada")
    assert await handle.broadcast("greet", name).results_async(timeout_s=5) == [(1, "Ada"), (2, "Ada"), (3, "Ada")]


async def test_an_argument_that_cannot_be_pickled_fails_where_it_is_given(world: World) -> None:
    handle = await greeters(world)
    with pytest.raises(TypeError, match="pickle"):
        handle.broadcast("greet", threading.Lock())


async def test_a_broadcast_ends_with_the_request_that_it_was_made_for(world: World) -> None:
    await hanging_in_both(world)

    async def outer() -> None:
        await DeploymentHandle[Any]("hanging", "shop").broadcast("__call__").results_async()

    response = (await world.serve("outer", outer)).remote()
    await both_entered(world)
    response.cancel()
    await wait_until(lambda: all(_hanging(world, n).cancelled for n in (1, 2)), within_s=5, what="the cancellations")


async def test_a_broadcast_leaves_no_connection_behind(world: World) -> None:
    handle = await greeters(world)
    await handle.broadcast("greet", "Ada").results_async(timeout_s=5)
    await wait_until(
        lambda: not any(server.callers for server in world.servers.values()), within_s=5, what="closed connections"
    )
    assert world.controller.unsubscribed == ["replicas/shop/greeter"]
