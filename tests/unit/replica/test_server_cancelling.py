"""What becomes of requests that nobody waits for any more; each test is a caller that sends frames."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from salver.schema.errors import RequestCancelledError
from salver.transport.wire import (
    CANCEL,
    CREDIT,
    HELD,
    REJECT,
    ROOM,
    CreditHead,
)
from tests.unit.replica.callers import Gate, Start, encode, settle
from tests.waiting import wait_until


@pytest.mark.parametrize("kind", ["call", "http"])
async def test_a_cancelled_request_is_cancelled_in_user_code_and_leaves_its_slot(start: Start, kind: str) -> None:
    rig = await start(Gate)
    gate = rig.server.user_code.instance
    caller = await rig.caller()
    getattr(caller, kind)(1)
    await settle()
    caller.connection.send(CANCEL, 1)
    await settle()
    assert (gate.entered, gate.cancelled) == (1, 1)
    assert rig.server.admission.taken == 0


@pytest.mark.parametrize("kind", ["call", "http"])
async def test_a_request_that_is_cancelled_before_its_first_step_leaves_its_slot(start: Start, kind: str) -> None:
    rig = await start(Gate)
    gate = rig.server.user_code.instance
    caller = await rig.caller()
    getattr(caller, kind)(1)
    caller.connection.send(CANCEL, 1)
    await settle()
    assert (gate.entered, rig.server.admission.taken) == (0, 0)


@pytest.mark.parametrize("started", [False, True], ids=["before its first step", "while it runs"])
async def test_requests_of_a_caller_that_is_gone_are_cancelled_and_leave_their_slots(
    start: Start, started: bool
) -> None:
    rig = await start(Gate)
    caller = await rig.caller()
    caller.call(1)
    caller.http(2)
    if started:
        await settle()
        caller.connection.abort()
    else:
        caller.connection.close()
    await settle()
    assert rig.server.admission.taken == 0
    assert rig.server.callers == set()


async def test_cancelling_what_is_over_does_nothing(start: Start) -> None:
    rig = await start(Gate)
    rig.server.user_code.instance.open.set()
    caller = await rig.caller()
    caller.call(1)
    await caller.result()
    caller.connection.send(CANCEL, 1)
    caller.connection.send(CREDIT, 1, encode(CreditHead(5)))
    caller.call(2)
    assert await caller.result() == "done"


async def test_a_handler_that_swallows_its_cancellation_leaves_its_slot(start: Start) -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "still here"

    rig = await start(stubborn)
    caller = await rig.caller()
    caller.call(1)
    await settle()
    caller.connection.send(CANCEL, 1)
    await settle()
    assert rig.server.admission.taken == 0


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def raises_cancelled_in_a_thread() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("handler", [raises_cancelled, cancels_its_task, raises_cancelled_in_a_thread])
async def test_a_handler_that_cancels_itself_is_answered(start: Start, handler: Callable[[], Any]) -> None:
    caller = await (await start(handler)).caller()
    caller.call(1)
    assert isinstance(await caller.error(), RequestCancelledError)
    caller.http(2)
    assert (await caller.next()).head.status == 500


@pytest.mark.parametrize("end", ["cancelled", "connection lost"])
async def test_a_cancelled_sync_handler_keeps_its_slot_until_its_thread_is_free(start: Start, end: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block() -> bool:
        entered.set()
        return go_on.wait(5)

    rig = await start(block, limit=1)
    caller, other = await rig.caller(), await rig.caller()
    caller.call(1)
    await wait_until(entered.is_set, within_s=5, what="the handler")
    if end == "cancelled":
        caller.send(CANCEL, 1)
        caller.send(CANCEL, 1)
    else:
        caller.connection.abort()
    await settle()
    other.call(1)
    assert (await other.next()).kind == REJECT
    go_on.set()
    assert (await other.next()).kind == ROOM
    other.call(2, flags=HELD)
    assert await other.result() is True


async def test_a_sync_handler_that_is_cancelled_before_it_has_a_thread_never_runs(start: Start) -> None:
    go_on, runs = threading.Event(), []

    def block(number: int) -> None:
        runs.append(number)
        go_on.wait(5)

    rig = await start(block, limit=1)
    rig.server.admission.change_limit(2)
    caller = await rig.caller()
    caller.call(1, "__call__", 1)
    await wait_until(lambda: runs == [1], within_s=5, what="the first call")
    caller.call(2, "__call__", 2)
    await settle()
    caller.send(CANCEL, 2)
    await settle()
    assert rig.server.admission.running == 1
    go_on.set()
    assert await caller.result() is None
    await rig.server.user_code.call("__call__", (3,), {})
    assert runs == [1, 3]


async def test_closing_cancels_all_requests_and_ends_all_connections_without_an_answer(start: Start) -> None:
    rig = await start(Gate, limit=3)
    callers = [await rig.caller() for _ in range(2)]
    callers[0].call(1)
    callers[1].http(1)
    await settle()
    callers[1].call(2)
    await settle()
    rig.server.close()
    await settle()
    assert rig.server.user_code.instance.cancelled == 3
    assert [each.frames.qsize() for each in callers] == [0, 0]
    assert all(each.connection.closed for each in callers)
    assert rig.server.admission.taken == 0
