"""Calls of requests whose clients wait only so long."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from salver.handle.call import GRACE_S
from salver.handle.request_context import RequestContext, current_request, enter_request, leave_request
from salver.schema.errors import RequestTimeoutError, SalverError
from salver.schema.ids import DeploymentID
from tests.unit.handle.worlds import Hanging, World, echo, in_thread
from tests.waiting import wait_until


@contextmanager
def within(seconds: float) -> Iterator[RequestContext]:
    """Work on a request whose client waits that long."""
    context = RequestContext("/shop", "the-request", "shop", deadline=time.monotonic() + seconds)
    token = enter_request(context)
    yield context
    leave_request(token)


async def deadline() -> float | None:
    """Return the deadline that the handler sees."""
    return current_request().deadline


async def test_what_is_left_of_the_time_travels_with_calls(world: World) -> None:
    handle = await world.serve("inner", deadline)

    async def outer() -> list[float | None]:
        return [current_request().deadline, await handle.remote()]

    outer_handle = await world.serve("outer", outer)
    with within(50) as context:
        first, second = await outer_handle.remote()
    assert context.deadline is not None
    assert context.deadline <= first <= second < context.deadline + 5


async def test_calls_outside_of_requests_have_no_deadline(world: World) -> None:
    handle = await world.serve("inner", deadline)
    assert await handle.remote() is None


@pytest.mark.parametrize("in_thread_too", [False, True])
async def test_a_call_after_the_deadline_fails_at_once(world: World, in_thread_too: bool) -> None:
    handle = await world.serve("hanging", Hanging)
    call: Callable[[], Awaitable[Any]] = handle.remote
    if in_thread_too:
        call = partial(in_thread, lambda: handle.remote().result(timeout_s=5))
    with within(-1), pytest.raises(RequestTimeoutError, match="Request the-request timed out") as caught:
        await call()
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, SalverError)
    assert world.servers["hanging"].user_code.instance.entered == 0


async def test_a_running_call_is_cancelled_at_its_deadline(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    began = time.monotonic()
    with within(0.1), pytest.raises(RequestTimeoutError):
        await handle.remote()
    assert time.monotonic() - began >= 0.1 + GRACE_S
    hanging = world.servers["hanging"].user_code.instance
    await wait_until(lambda: hanging.cancelled == 1, within_s=5, what="the cancellation")


async def test_a_thread_that_waits_wakes_at_the_deadline(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    with within(0.1), pytest.raises(RequestTimeoutError):
        await in_thread(lambda: handle.remote().result(timeout_s=9))


async def test_a_waiting_call_leaves_the_queue_at_its_deadline(world: World) -> None:
    handle = await world.serve("hanging", Hanging, limit=1)
    hanging = world.servers["hanging"].user_code.instance
    first = handle.remote("first")
    await wait_until(lambda: hanging.entered, within_s=5, what="the first call")
    with within(0.1), pytest.raises(RequestTimeoutError):
        await handle.remote()
    assert world.routers.get(DeploymentID("hanging", "shop")).num_waiting == 0
    hanging.go_on.set()
    assert await first == "first"
    assert hanging.entered == 1


async def test_a_call_whose_argument_does_not_come_fails_at_the_deadline(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    argument = handle.remote()
    with within(0.1), pytest.raises(RequestTimeoutError):
        await handle.remote(argument)
    assert world.servers["hanging"].user_code.instance.entered == 1
    argument.cancel()


async def test_settled_calls_are_not_watched(world: World) -> None:
    handle = await world.serve("echo", echo)
    from salver.handle.session import current_session

    deadlines = current_session().deadlines
    with within(50):
        responses = [handle.remote(number) for number in range(5)]
        assert len(deadlines) == 5
        assert [await each for each in responses] == [0, 1, 2, 3, 4]
        responses.append(handle.remote())
        responses[-1].cancel()
        assert await in_thread(lambda: handle.remote(6).result(timeout_s=5)) == 6
    await wait_until(lambda: not len(deadlines), within_s=5, what="an end of all watches")


async def test_background_work_after_an_answer_has_no_deadline(world: World) -> None:
    handle = await world.serve("inner", deadline)

    class Ended:
        ended = True

    with within(0) as context:
        context.answer = Ended()
        assert await handle.remote() is None
    assert not context.children
