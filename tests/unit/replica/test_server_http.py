"""HTTP on the replica's side of a connection; each test is a proxy that sends frames."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from salver.handle.request_context import current_request
from salver.replica.http import WINDOW_SIZE_BYTES
from salver.schema.errors import BackPressureError
from salver.transport.wire import CANCEL, CHUNK, CREDIT, END, ERROR, MORE, RESPONSE, CreditHead
from tests.unit.replica.callers import ERRORS, Gate, Start, encode, settle
from tests.waiting import wait_until


async def test_a_request_arrives_whole(start: Start) -> None:
    async def echo(request: Request) -> Any:
        return {
            "method": request.method,
            "path": request.url.path,
            "root_path": request.scope["root_path"],
            "query": dict(request.query_params),
            "header": request.headers["X-Y"],
            "body": (await request.body()).decode(),
            "client": request.client,
            "context": current_request().is_http_request,
        }

    caller = await (await start(echo)).caller()
    caller.http(3, b"hello", "/shop/x")
    frame = await caller.next()
    assert (frame.kind, frame.stream, frame.flags, frame.head.status) == (RESPONSE, 3, 0, 200)
    assert frame.head.headers[0] == (b"content-type", b"application/json")
    assert msgspec.json.decode(frame.body) == {
        "method": "POST",
        "path": "/shop/x",
        "root_path": "/shop",
        "query": {"a": "1"},
        "header": "z",
        "body": "hello",
        "client": ["::1", 9],
        "context": True,
    }


async def test_a_result_is_sent_with_its_type_and_length(start: Start) -> None:
    async def hello(request: Request) -> str:
        return "héllo"

    caller = await (await start(hello)).caller()
    for stream in (1, 2):
        caller.http(stream)
        frame = await caller.next()
        assert frame.head.headers == [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"6"),
        ]
        assert frame.body == "héllo".encode()


async def test_a_starlette_response_is_sent_as_it_is(start: Start) -> None:
    async def teapot(request: Request) -> Response:
        return JSONResponse({"short": True}, 418, headers={"x-spout": "yes"})

    caller = await (await start(teapot)).caller()
    caller.http(1)
    frame = await caller.next()
    assert (frame.head.status, frame.flags, frame.body) == (418, 0, b'{"short":true}')
    assert (b"x-spout", b"yes") in frame.head.headers


async def test_background_work_of_a_response_runs_after_the_answer(start: Start) -> None:
    go_on = asyncio.Event()

    async def with_work(request: Request) -> Response:
        return Response("ok", background=BackgroundTask(go_on.wait))

    rig = await start(with_work)
    caller = await rig.caller()
    caller.http(1)
    assert (await caller.next()).body == b"ok"
    assert rig.server.admission.taken == 1
    go_on.set()
    await settle()
    assert rig.server.admission.taken == 0


@pytest.mark.parametrize("end", ["cancelled", "connection lost"])
async def test_background_work_runs_on_when_the_caller_is_gone(start: Start, end: str) -> None:
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append("work")

    async def with_work(request: Request) -> Response:
        return Response("ok", background=BackgroundTask(work))

    rig = await start(with_work)
    caller = await rig.caller()
    caller.http(1)
    await caller.next()
    if end == "cancelled":
        caller.send(CANCEL, 1)
    else:
        caller.connection.close()
    await settle()
    assert rig.server.admission.running == 1
    go_on.set()
    await settle()
    assert done == ["work"]
    assert rig.server.admission.running == 0


async def test_failing_background_work_does_not_touch_the_answer(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("too late")

    async def with_work(request: Request) -> Response:
        return Response("ok", background=BackgroundTask(fail))

    rig = await start(with_work)
    caller = await rig.caller()
    caller.http(1)
    assert (await caller.next()).body == b"ok"
    caller.http(2)
    assert (await caller.next())[:2] == (RESPONSE, 2)
    await wait_until(lambda: not rig.server.admission.taken, within_s=5, what="an end of the background work")
    assert "request request-1 was answered, then raised" in caplog.text


async def test_a_streamed_body_leaves_piece_by_piece(start: Start) -> None:
    ready = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await ready.wait()
        yield b"two"

    async def stream(request: Request) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    caller = await (await start(stream)).caller()
    caller.http(1)
    first = await caller.next()
    assert (first.kind, first.flags, first.body) == (RESPONSE, MORE, b"one")
    ready.set()
    rest = [await caller.next(), await caller.next()]
    assert [(frame.kind, frame.body) for frame in rest] == [(CHUNK, b"two"), (END, b"")]


async def test_a_slow_reader_stops_the_stream_until_it_grants_more(start: Start) -> None:
    sent = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(6):
            sent.append(number)
            yield bytes(WINDOW_SIZE_BYTES // 2)

    async def stream(request: Request) -> Response:
        return StreamingResponse(pieces())

    caller = await (await start(stream)).caller()
    caller.http(1)
    await settle()
    assert sent == [0, 1]
    caller.connection.send(CREDIT, 1, encode(CreditHead(WINDOW_SIZE_BYTES)))
    await settle()
    assert sent == [0, 1, 2, 3]
    caller.connection.send(CREDIT, 1, encode(CreditHead(10 * WINDOW_SIZE_BYTES)))
    await settle()
    assert caller.frames.qsize() == 7


class Endless:
    """Streams for ever, and remembers how that ended."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = ""

    async def __call__(self, request: Request) -> Response:
        """Stream."""
        return StreamingResponse(self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.sent += 1
                yield bytes(WINDOW_SIZE_BYTES)
        except BaseException as error:
            self.ended = type(error).__name__
            raise


@pytest.mark.parametrize("end", ["cancelled", "connection lost", "closed"])
async def test_a_stream_that_waits_for_its_reader_ends_with_it(start: Start, end: str) -> None:
    rig = await start(Endless)
    caller = await rig.caller()
    caller.http(1)
    await settle()
    endless = rig.server.user_code.instance
    assert (endless.sent, rig.server.admission.running) == (1, 1)
    if end == "cancelled":
        caller.send(CANCEL, 1)
    elif end == "closed":
        rig.server.close()
    else:
        caller.connection.abort()
    await settle()
    assert rig.server.admission.running == 0
    assert endless.sent == 1
    assert endless.ended in ("CancelledError", "GeneratorExit")


async def test_credit_is_counted_and_not_lost_while_nobody_waits_for_it(start: Start) -> None:
    rig = await start(Endless)
    caller = await rig.caller()
    caller.http(1)
    await caller.next()
    for _ in range(3):
        caller.send(CREDIT, 1, encode(CreditHead(WINDOW_SIZE_BYTES)))
    await settle()
    assert rig.server.user_code.instance.sent == 4
    caller.send(CREDIT, 1, encode(CreditHead(1)))
    await settle()
    assert rig.server.user_code.instance.sent == 5


async def test_malformed_credit_ends_its_own_connection_only(start: Start) -> None:
    rig = await start(Endless)
    broken, other = await rig.caller(), await rig.caller()
    for each in (broken, other):
        each.http(1)
        await each.next()
    broken.send(CREDIT, 1, b"\xc1")
    await settle()
    assert (broken.connection.closed, other.connection.closed) == (True, False)
    assert rig.server.admission.running == 1


async def test_a_stream_that_breaks_is_cut_and_not_finished(start: Start) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    async def stream(request: Request) -> Response:
        return StreamingResponse(pieces())

    rig = await start(stream)
    caller = await rig.caller()
    caller.http(1)
    assert (await caller.next()).kind == RESPONSE
    cut = await caller.next()
    assert (cut.kind, cut.error.kind, cut.error.message) == (ERROR, "stream", "ValueError")
    assert rig.server.admission.taken == 0


async def test_a_response_that_sends_nothing_is_an_error(start: Start) -> None:
    class Silent(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Send nothing."""

    async def silent(request: Request) -> Response:
        return Silent()

    caller = await (await start(silent)).caller()
    caller.http(1)
    assert (await caller.next()).head.status == 500


async def test_a_head_that_is_too_large_is_an_error_and_not_silence(start: Start) -> None:
    async def large(request: Request) -> Response:
        return Response("ok", headers={"x-large": "x" * 70_000})

    caller = await (await start(large)).caller()
    caller.http(1)
    assert (await caller.next()).head.status == 500


@pytest.mark.parametrize("expose", [False, True], ids=["hidden", "exposed"])
async def test_a_failing_handler_is_a_500_and_shows_its_traceback_only_where_wished(
    start: Start, expose: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: Request) -> None:
        raise ValueError("secret")

    caller = await (await start(fail, expose=expose)).caller()
    with caplog.at_level(logging.ERROR):
        caller.http(1)
        frame = await caller.next()
    assert frame.head.status == 500
    assert (b"secret" in frame.body) == expose
    assert expose or frame.body == b"Internal Server Error"
    assert "request request-1 failed with 500" in caplog.text


@pytest.mark.parametrize("is_async", [True, False], ids=["async def", "def"])
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_handler_raises_is_a_500_of_its_request_alone(
    start: Start, error: BaseException, is_async: bool
) -> None:
    async def fail(request: Request) -> None:
        raise error

    def fail_in_a_thread(request: Request) -> None:
        raise error

    rig = await start(fail if is_async else fail_in_a_thread, expose=True)
    caller = await rig.caller()
    caller.http(1)
    frame = await caller.next()
    assert (frame.kind, frame.head.status) == (RESPONSE, 500)
    assert type(error).__name__.encode() in frame.body


def generator() -> Any:
    """Be a generator that has begun."""
    begun = iter_twice()
    next(begun)
    return begun


def iter_twice() -> Any:
    """Yield twice."""
    yield 1
    yield 2


@pytest.mark.parametrize("make", [generator, object], ids=["generator", "no JSON"])
@pytest.mark.parametrize("nested", [False, True], ids=["bare", "in a list"])
async def test_a_result_that_is_no_answer_is_a_500(start: Start, make: Callable[[], Any], nested: bool) -> None:
    async def handler(request: Request) -> object:
        return [make()] if nested else make()

    caller = await (await start(handler)).caller()
    caller.http(1)
    assert (await caller.next()).head.status == 500


async def test_backpressure_of_a_call_within_becomes_the_answer(start: Start) -> None:
    async def fail(request: Request) -> None:
        raise BackPressureError(1, 1, 429, 2.5)

    caller = await (await start(fail)).caller()
    caller.http(1)
    frame = await caller.next()
    assert frame.head.status == 429
    assert (b"retry-after", b"3") in frame.head.headers


async def test_an_answer_tells_how_many_other_requests_there_are(start: Start) -> None:
    class Two:
        def __init__(self) -> None:
            self.gate = Gate()

        async def __call__(self, request: Request) -> Response:
            return Response("quick")

        async def slow(self) -> None:
            await self.gate()

    caller = await (await start(Two, limit=3)).caller()
    caller.call(1, "slow")
    caller.call(2, "slow")
    await settle()
    caller.http(3)
    assert (await caller.next()).load == 2
