"""Requests whose callers wait only so long, and what a request has called."""

import asyncio
import time
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse

from salver.handle.request_context import RequestContext, current_request
from salver.schema.errors import RequestTimeoutError
from salver.transport.codec import dumps
from salver.transport.wire import CALL, CANCEL, HTTP, CallHead, HttpHead
from tests.unit.replica.callers import Client, Start, encode, settle

seen: list[RequestContext] = []


async def look(*_: Any) -> str:
    """Remember the request."""
    seen.append(current_request())
    return "seen"


def call(caller: Client, stream: int, timeout_s: float | None) -> None:
    head = CallHead("__call__", "late", "/shop", "shop", "", timeout_s)
    caller.connection.send(CALL, stream, encode(head), dumps(((), {})))


def http(caller: Client, stream: int, timeout_s: float | None) -> None:
    head = HttpHead("POST", "/", b"", "1.1", [], None, "late", "/", "/", "/", timeout_s)
    caller.connection.send(HTTP, stream, encode(head))


@pytest.fixture(autouse=True)
def _seen_nothing() -> None:
    seen.clear()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_a_request_that_comes_too_late_is_not_run(start: Start, timeout_s: float) -> None:
    rig = await start(look)
    caller = await rig.caller()
    call(caller, 1, timeout_s)
    error = await caller.error()
    assert isinstance(error, RequestTimeoutError)
    assert error.request_id == "late"
    http(caller, 2, timeout_s)
    answer = await caller.next()
    assert (answer.head.status, answer.body) == (408, b"Request late timed out.")
    assert (seen, rig.server.admission.taken) == ([], 0)


async def test_the_time_that_is_left_becomes_a_deadline(start: Start) -> None:
    caller = await (await start(look)).caller()
    before = time.monotonic()
    for send in (call, http):
        for timeout_s in (5.0, None):
            send(caller, 1, timeout_s)
            await caller.next()
    after = time.monotonic()
    with_deadline = [each.deadline for each in seen[::2]]
    assert all(each is not None and before + 5 <= each <= after + 5 for each in with_deadline)
    assert [each.deadline for each in seen[1::2]] == [None, None]


class Child:
    """A call that a request has made."""

    def __init__(self) -> None:
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1


async def test_what_runs_after_an_answer_keeps_its_calls_whatever_its_caller_does(start: Start) -> None:
    child, entered, go_on = Child(), asyncio.Event(), asyncio.Event()

    async def background() -> None:
        current_request().adopt(child)
        entered.set()
        await go_on.wait()

    async def handler(_request: object) -> PlainTextResponse:
        return PlainTextResponse("answer", background=BackgroundTask(background))

    rig = await start(handler)
    caller = await rig.caller()
    caller.http(1)
    await caller.next()
    await asyncio.wait_for(entered.wait(), timeout=5)
    caller.send(CANCEL, 1)
    caller.connection.close()
    await settle()
    assert child.stopped == 0
    go_on.set()


async def test_a_request_that_is_over_owns_nothing_more(start: Start) -> None:
    rig = await start(look)
    caller = await rig.caller()
    caller.call(1)
    await caller.result()
    await settle()
    assert seen[0].is_over
    assert not seen[0].is_open
    [connection] = rig.server.callers
    assert connection._contexts == {}
