"""Calls that stream, as their callers see them; each row of the contract has a test named after it."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from salver.handle import DeploymentResponseGenerator
from salver.handle.request_context import current_request
from salver.handle.session import Session
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
from tests.unit.handle.worlds import CodeError, Hanging, World, echo, in_thread
from tests.waiting import wait_until

variable: ContextVar[int] = ContextVar("variable", default=0)


class Numbers:
    """Generators of all kinds.

    Attributes:
        yielded: How many items have left a generator.
        ends: How each generator ended.
    """

    def __init__(self) -> None:
        self.yielded = 0
        self.ends: list[str] = []
        self.go_on = threading.Event()

    def count(self, number: int) -> Iterator[int]:
        yield from range(number)

    async def count_later(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each

    def endless(self) -> Iterator[int]:
        try:
            while True:
                self.yielded += 1
                yield self.yielded
        finally:
            self.ends.append("closed")

    async def endless_later(self) -> AsyncIterator[int]:
        try:
            while True:
                self.yielded += 1
                yield self.yielded
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        finally:
            self.ends.append("closed")

    def fail(self, number: int) -> Iterator[int]:
        yield from range(number)
        raise CodeError(7, "no")

    async def fail_later(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each
        raise CodeError(7, "no")

    async def hang(self, number: int = 1) -> AsyncIterator[int]:
        try:
            for each in range(number):
                yield each
            await asyncio.Event().wait()
        finally:
            self.ends.append("closed")

    def block(self) -> Iterator[int]:
        yield 0
        try:
            self.go_on.wait(10)
            yield 1
        finally:
            self.ends.append("closed")

    def where(self, number: int) -> Iterator[tuple[str, int]]:
        for each in range(number):
            before = variable.get()
            variable.set(each + 1)
            yield current_request().request_id, before

    async def where_later(self, number: int) -> AsyncIterator[tuple[str, int]]:
        for each in range(number):
            before = variable.get()
            variable.set(each + 1)
            yield current_request().request_id, before

    def lock(self) -> Iterator[Any]:
        try:
            yield 1
            yield threading.Lock()
            yield 2
        finally:
            self.ends.append("closed")

    def plain(self, *_: Any) -> int:
        return 1

    async def plain_later(self) -> list[int]:
        return [1]


Served = tuple[Any, Numbers]
KINDS = pytest.mark.parametrize("name", ["count", "count_later"])
ENDLESS = pytest.mark.parametrize("name", ["endless", "endless_later"])


async def serve(world: World, **options: Any) -> Served:
    """Start the deployment; return a handle that streams, and the instance."""
    handle: Any = await world.serve("numbers", Numbers, **options)
    instance = world.servers["numbers"].user_code.instance
    assert isinstance(instance, Numbers)
    return handle.options(stream=True), instance


async def idle(world: World) -> None:
    """Wait until no replica works on anything, and no caller thinks that one does."""
    servers = world.servers.values()
    await wait_until(lambda: not any(each.admission.taken for each in servers), within_s=5, what="idle replicas")


async def all_of(generator: Any) -> list[Any]:
    """Return all items."""
    return [item async for item in generator]


# The rows of the contract


@KINDS
async def test_async_for_gives_the_items_as_they_were_yielded(world: World, name: str) -> None:
    handle, _ = await serve(world)
    response = getattr(handle, name).remote(1000)
    assert isinstance(response, DeploymentResponseGenerator)
    assert await all_of(response) == list(range(1000))
    await idle(world)


async def test_anext_gives_one_item_after_the_other(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.count.remote(2)
    assert aiter(response) is response
    assert [await response.__anext__(), await anext(response)] == [0, 1]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await response.__anext__()


@KINDS
async def test_for_and_next_give_the_items_outside_of_event_loops(world: World, name: str) -> None:
    handle, _ = await serve(world)

    def read() -> tuple[int, list[int]]:
        response = getattr(handle, name).remote(700)
        return next(response), list(response)

    assert await in_thread(read) == (0, list(range(1, 700)))


async def test_for_and_next_are_refused_inside_of_an_event_loop(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.count.remote(1)
    with pytest.raises(RuntimeError, match=r"Use `async for` or `await response.__anext__\(\)` instead"):
        next(response)
    with pytest.raises(RuntimeError, match="Sync methods should not be called from within an `asyncio` event loop"):
        for _ in response:
            pass
    assert await all_of(response) == [0]


async def test_awaiting_the_generator_is_a_type_error(world: World) -> None:
    handle, _ = await serve(world)
    with pytest.raises(TypeError, match="cannot be awaited"):
        await handle.count.remote(1)


async def test_object_references_are_refused(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.count.remote(1)
    with pytest.raises(SalverError, match="no Ray object references"):
        await response._to_object_ref_gen()
    with pytest.raises(SalverError, match="no Ray object references"):
        response._to_object_ref_gen_sync()


async def test_result_is_a_type_error(world: World) -> None:
    handle, _ = await serve(world)
    with pytest.raises(TypeError, match="no single result"):
        handle.count.remote(1).result()


async def test_passing_it_to_another_call_is_refused(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.count.remote(1)
    other: Any = await world.serve("echo", echo)
    for arguments in ((response,), ([response],)):
        with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
            await other.remote(*arguments)
    with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
        await all_of(handle.plain.remote(response))


@ENDLESS
async def test_cancel_stops_the_generator_and_cancelled_says_so(world: World, name: str) -> None:
    handle, numbers = await serve(world)
    response = getattr(handle, name).remote()
    assert await anext(response) == 1
    assert not response.cancelled()
    response.cancel()
    response.cancel()
    assert response.cancelled()
    for _ in range(2):
        with pytest.raises(RequestCancelledError, match=f"Request {response.request_id} was cancelled"):
            await anext(response)
    await idle(world)
    assert numbers.ends == (["closed"] if name == "endless" else ["cancelled", "closed"])


async def test_request_id_is_that_of_the_request(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.where.remote(1)
    assert await all_of(response) == [(response.request_id, 0)]


@pytest.mark.parametrize("name", ["fail", "fail_later"])
@pytest.mark.parametrize("number", [0, 3])
async def test_an_error_in_the_generator_comes_after_the_items_so_far(world: World, name: str, number: int) -> None:
    handle, _ = await serve(world)
    response = getattr(handle, name).remote(number)
    assert [await anext(response) for _ in range(number)] == list(range(number))
    with pytest.raises(CodeError, match="no") as caught:
        await anext(response)
    assert isinstance(caught.value, RemoteError)
    assert caught.value.code == 7
    with pytest.raises(StopAsyncIteration):
        await anext(response)
    await idle(world)


@pytest.mark.parametrize("name", ["plain", "plain_later"])
async def test_stream_true_on_a_non_generator_is_a_type_error(world: World, name: str) -> None:
    handle, _ = await serve(world)
    expected = rf"Called method '{name}' with `handle.options\(stream=True\)` but it did not return a generator\."
    with pytest.raises(TypeError, match=expected):
        await anext(getattr(handle, name).remote())
    await idle(world)


@KINDS
async def test_a_generator_without_stream_is_a_type_error(world: World, name: str) -> None:
    handle, _ = await serve(world)
    expected = rf"Method '{name}' returned a generator\. You must use `handle.options\(stream=True\)`"
    with pytest.raises(TypeError, match=expected):
        await getattr(handle.options(stream=False), name).remote(3)


async def test_sync_generators_are_iterated_in_a_thread(world: World) -> None:
    handle, numbers = await serve(world)
    response = handle.block.remote()
    assert await anext(response) == 0
    # The loop is free while it blocks.
    assert await all_of(handle.count_later.remote(3)) == [0, 1, 2]
    numbers.go_on.set()
    assert await anext(response) == 1


# Beginning and end


async def test_the_call_begins_at_once(world: World) -> None:
    handle, numbers = await serve(world)
    response = handle.endless_later.remote()
    await wait_until(lambda: numbers.yielded, within_s=5, what="the first item")
    response.cancel()


async def test_the_first_item_arrives_while_the_generator_waits_for_the_second(world: World) -> None:
    handle, numbers = await serve(world)
    async with aclosing(handle.hang.remote(2)) as response:
        assert [await anext(response), await anext(response)] == [0, 1]
        assert numbers.ends == []
    await idle(world)


@pytest.mark.parametrize("how", ["break", "aclose", "close", "collected"])
@pytest.mark.parametrize("name", ["endless", "endless_later", "hang"])
async def test_a_generator_that_nobody_wants_any_more_is_closed(world: World, name: str, how: str) -> None:
    handle, numbers = await serve(world)
    method = getattr(handle, name)
    if how == "break":
        async for _ in method.remote():
            break
    else:
        response = method.remote()
        await anext(response)
        if how == "aclose":
            await response.aclose()
        elif how == "close":
            response.close()
        if how != "collected":
            with pytest.raises(StopAsyncIteration):
                await anext(response)
        del response
    gc.collect()
    await idle(world)
    assert numbers.ends[-1] == "closed"


async def test_a_thread_that_breaks_off_closes_the_generator(world: World) -> None:
    handle, numbers = await serve(world)

    def read() -> int:
        for number in handle.endless.remote():
            if number == 500:
                return int(number)
        return 0

    assert await in_thread(read) == 500
    await idle(world)
    assert numbers.ends == ["closed"]


async def test_a_task_that_is_cancelled_while_it_waits_cancels_the_call(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.hang.remote(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(response), timeout=0.05)
    await idle(world)
    with pytest.raises(RequestCancelledError):
        await anext(response)


async def test_a_cancelled_call_that_waits_never_reaches_a_replica(world: World) -> None:
    handle, numbers = await serve(world, limit=1)
    first = handle.hang.remote()
    assert await anext(first) == 0
    second = handle.endless.remote()
    second.cancel()
    with pytest.raises(RequestCancelledError):
        await anext(second)
    first.cancel()
    await idle(world)
    assert numbers.yielded == 0


async def test_a_stream_keeps_its_slot_until_it_ends(world: World) -> None:
    handle, _ = await serve(world, limit=1)
    first = handle.hang.remote(3)
    assert [await anext(first) for _ in range(3)] == [0, 1, 2]
    second = handle.count.remote(2)
    waiting = world.routers.get(DeploymentID("numbers", "shop"))
    await wait_until(lambda: waiting.num_waiting == 1, within_s=5, what="the second call to wait")
    assert world.servers["numbers"].admission.taken == 1
    first.cancel()
    assert await all_of(second) == [0, 1]


async def test_an_item_that_cannot_be_pickled_ends_the_stream_after_those_before(world: World) -> None:
    handle, numbers = await serve(world)
    response = handle.lock.remote()
    assert await anext(response) == 1
    with pytest.raises(TypeError, match="lock"):
        await anext(response)
    await idle(world)
    assert numbers.ends == ["closed"]


async def test_an_unknown_method_is_named(world: World) -> None:
    handle, _ = await serve(world)
    with pytest.raises(NoSuchMethod, match="'nope' that does not exist"):
        await anext(handle.nope.remote())


async def test_a_full_queue_refuses_a_stream(world: World) -> None:
    handle, _ = await serve(world, limit=1, max_queued_requests=0)
    first = handle.hang.remote()
    assert await anext(first) == 0
    with pytest.raises(BackPressureError):
        await anext(handle.count.remote(1))
    first.cancel()


async def test_a_deployment_that_is_gone_refuses_a_stream(world: World) -> None:
    deployment = DeploymentID("gone", "shop")
    world.controller.publish(replicas_topic(deployment), Replicas(unavailable="it was deleted"))
    handle: Any = await world.serve("numbers", Numbers)
    gone = type(handle)("gone", "shop").options(stream=True)
    with pytest.raises(DeploymentUnavailableError):
        await anext(gone.remote())


# Who dies


async def test_a_reader_learns_that_its_process_has_left_the_instance(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.hang.remote(1)
    assert await anext(response) == 0
    waiting = in_thread(lambda: next(response))
    world.tasks.start(leave(world), name="leave")
    with pytest.raises(ReplicaDiedError):
        await waiting


async def leave(world: World) -> None:
    """Close all connections to replicas."""
    world.routers.close()


async def test_a_response_may_outlive_its_session(world: World) -> None:
    handle, _ = await serve(world)
    response, other = handle.hang.remote(1), handle.hang.remote(1)
    assert [await anext(response), await anext(other)] == [0, 0]
    ended = asyncio.new_event_loop()
    ended.close()
    response._call._session = Session(ended, world.link, world.routers, "controller")
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await anext(response)
    other._call._session = response._call._session
    del other
    gc.collect()
    world.routers.close()


async def test_a_replica_that_dies_leaves_the_items_so_far_and_an_error(world: World) -> None:
    handle, numbers = await serve(world)
    response = handle.hang.remote(3)
    assert await anext(response) == 0
    await asyncio.sleep(0)
    await wait_until(lambda: len(response._call._items._arrived) == 2, within_s=5, what="the other items")
    world.network.ends[-1].cut()
    assert [await anext(response), await anext(response)] == [1, 2]
    with pytest.raises(ReplicaDiedError, match="died while it was working on request"):
        await anext(response)
    await idle(world)
    assert numbers.ends == ["closed"], "its caller is gone, too"


# Context


@pytest.mark.parametrize("name", ["where", "where_later"])
async def test_context_variables_stay_from_one_item_to_the_next(world: World, name: str) -> None:
    handle, _ = await serve(world)
    response = getattr(handle, name).remote(3)
    assert await all_of(response) == [(response.request_id, number) for number in range(3)]
    assert variable.get() == 0


async def test_arguments_may_be_responses(world: World) -> None:
    handle, _ = await serve(world)
    other: Any = await world.serve("echo", echo)
    assert await all_of(handle.count.remote(other.remote(3))) == [0, 1, 2]
    assert await all_of(handle.count.remote(number=other.remote(2))) == [0, 1]


async def test_an_argument_that_failed_is_the_error_of_the_stream(world: World) -> None:
    handle, _ = await serve(world)
    failing = handle.options(stream=False).fail.remote(1)
    with pytest.raises(TypeError, match="returned a generator"):
        await anext(handle.count.remote(failing))


async def test_a_stream_that_waits_for_an_argument_can_be_cancelled(world: World) -> None:
    handle, _ = await serve(world)
    argument = (await world.serve("hanging", Hanging)).remote()
    num_tasks = len(world.tasks)
    response = handle.count.remote(argument)
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await anext(response)
    await wait_until(lambda: len(world.tasks) <= num_tasks, within_s=5, what="the end of the wait")
    argument.cancel()


async def test_a_stream_can_be_read_from_another_loop(world: World) -> None:
    handle, _ = await serve(world)

    def read() -> list[int]:
        async def main() -> list[int]:
            return await all_of(handle.count_later.remote(600))

        return asyncio.run(main())

    assert await in_thread(read) == list(range(600))
    await idle(world)


async def test_several_readers_share_the_items(world: World) -> None:
    handle, _ = await serve(world)
    response = handle.count_later.remote(900)
    parts = await asyncio.gather(
        all_of(response), all_of(response), in_thread(lambda: list(response)), in_thread(lambda: list(response))
    )
    assert sorted(item for part in parts for item in part) == list(range(900))


async def test_options_stream_is_kept_and_can_be_undone(world: World) -> None:
    handle, _ = await serve(world)
    import pickle

    assert await all_of(pickle.loads(pickle.dumps(handle)).options(method_name="count").remote(1)) == [0]
    assert await handle.options(stream=False).plain.remote() == 1
    assert handle.options(stream=False) != handle
