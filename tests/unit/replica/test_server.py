"""The replica's side of a connection: each test is a caller that sends frames. HTTP has a file of its own."""

import asyncio
import logging
import pickle
import threading
from typing import Any

import pytest

from salver.handle.request_context import current_request
from salver.lib.exceptions import unpacked
from salver.schema.errors import BackPressureError, NoSuchMethod
from salver.transport.codec import dumps, loads
from salver.transport.wire import (
    CALL,
    CHUNK,
    ERROR,
    HTTP,
    RESPONSE,
    RESULT,
    CallHead,
)
from tests.unit.replica.callers import ERRORS, Gate, Start, encode


async def test_a_call_is_answered_with_its_result_and_the_load(start: Start) -> None:
    async def double(number: int) -> int:
        return 2 * number

    caller = await (await start(double)).caller()
    caller.call(7, "__call__", 4)
    frame = await caller.next()
    assert (frame.kind, frame.stream, frame.load, loads(frame.body)) == (RESULT, 7, 0, 8)


async def test_a_call_knows_its_request(start: Start) -> None:
    async def context() -> Any:
        return current_request()

    caller = await (await start(context)).caller()
    caller.call(7)
    request = await caller.result()
    assert (request.request_id, request.route, request.app_name) == ("request-7", "/shop", "shop")
    assert not request.is_http_request


class CodeError(Exception):
    """Its constructor takes other arguments than its base's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


async def test_what_user_code_raises_comes_back_with_its_traceback(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise CodeError(7, "no")

    caller = await (await start(fail)).caller()
    with caplog.at_level(logging.WARNING):
        caller.call(1)
        frame = await caller.next()
    assert frame.error.kind == "user"
    assert frame.error.traceback.endswith("CodeError: 7 no")
    assert "in fail" in frame.error.traceback
    assert "user_code.py" not in frame.error.traceback
    again = unpacked(loads(frame.error.pickled))
    assert isinstance(again, CodeError)
    assert again.code == 7
    assert "request request-1: __call__ raised" in caplog.text


async def test_an_error_of_ours_that_user_code_passes_on_is_the_users(start: Start) -> None:
    async def fail() -> None:
        raise BackPressureError(1, 2)

    caller = await (await start(fail)).caller()
    caller.call(1)
    assert (await caller.next()).error.kind == "user"


class Unpicklable(ValueError):
    """Holds something that cannot travel."""

    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = asyncio.Lock
        self.generator = (each for each in "")


async def test_an_error_that_cannot_be_pickled_whole_travels_as_type_and_text(start: Start) -> None:
    async def fail() -> None:
        raise Unpicklable

    caller = await (await start(fail)).caller()
    caller.call(1)
    error = await caller.error()
    assert isinstance(error, Unpicklable)
    assert str(error) == "cannot travel"


@pytest.mark.parametrize("is_async", [True, False], ids=["async def", "def"])
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_handler_raises_is_the_error_of_its_request_alone(
    start: Start, error: BaseException, is_async: bool
) -> None:
    class Failing(Gate):
        async def fail(self) -> None:
            raise error

        def fail_in_a_thread(self) -> None:
            raise error

    rig = await start(Failing)
    caller, other = await rig.caller(), await rig.caller()
    other.call(1)
    caller.call(1, "fail" if is_async else "fail_in_a_thread")
    frame = await caller.next()
    assert frame.error.kind == "user"
    assert type(error).__name__ in frame.error.traceback
    rig.server.user_code.instance.open.set()
    assert await other.result() == "done"


@pytest.mark.parametrize("is_async", [True, False], ids=["async def", "def"])
async def test_stop_iteration_of_a_handler_is_an_error_like_others(start: Start, is_async: bool) -> None:
    class Exhausted:
        async def later(self) -> None:
            next(iter(()))

        def now(self) -> None:
            next(iter(()))

    caller = await (await start(Exhausted)).caller()
    caller.call(1, "later" if is_async else "now")
    assert isinstance(await caller.error(), RuntimeError)


async def test_a_missing_method_is_our_error(start: Start) -> None:
    caller = await (await start(Gate)).caller()
    caller.call(1, "nope")
    frame = await caller.next()
    assert frame.error.kind == "salver"
    assert isinstance(unpacked(loads(frame.error.pickled)), NoSuchMethod)


async def test_a_result_that_cannot_be_pickled_is_an_error(start: Start) -> None:
    async def make() -> Any:
        return threading.Lock()

    caller = await (await start(make)).caller()
    caller.call(1)
    assert isinstance(await caller.error(), TypeError)


class RefusesToBeBuilt:
    """Pickles, but raises when it is unpickled."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("not here")

    def __getstate__(self) -> object:
        return {"some": "state"}


HEAD = encode(CallHead("__call__", "request-1", "", "shop", ""))
MALFORMED = [
    pytest.param(CALL, b"\xc1", b"", id="call's head is no msgpack"),
    pytest.param(CALL, b"", b"", id="call without a head"),
    pytest.param(CALL, encode(["__call__", 7]), b"", id="call's head is another thing"),
    pytest.param(CALL, HEAD, b"", id="call without arguments"),
    pytest.param(CALL, HEAD, b"not a pickle", id="arguments are no pickle"),
    pytest.param(CALL, HEAD, dumps(7), id="arguments are no pair"),
    pytest.param(CALL, HEAD, dumps(((), 7)), id="keywords are no mapping"),
    pytest.param(CALL, HEAD, pickle.dumps(((RefusesToBeBuilt(),), {})), id="an argument refuses to be unpickled"),
    pytest.param(CALL, HEAD, b"cnowhere\nThing\n.", id="an argument's class is not here"),
    pytest.param(HTTP, b"\xc1", b"", id="request's head is no msgpack"),
    pytest.param(HTTP, b"", b"", id="request without a head"),
]


@pytest.mark.parametrize(("kind", "head", "body"), MALFORMED)
async def test_a_malformed_request_is_answered_and_harms_no_other(
    start: Start, kind: int, head: bytes, body: bytes
) -> None:
    rig = await start(Gate)
    rig.server.user_code.instance.open.set()
    caller = await rig.caller()
    caller.send(kind, 1, head, body)
    assert (await caller.next()).kind == (ERROR if kind == CALL else RESPONSE)
    assert rig.server.admission.taken == 0
    caller.call(2)
    assert await caller.result() == "done"


async def test_frames_of_later_versions_are_left_alone(start: Start) -> None:
    rig = await start(Gate)
    rig.server.user_code.instance.open.set()
    caller = await rig.caller()
    caller.send(99, 1, b"?", b"?")
    caller.send(CHUNK, 5, b"", b"?")
    caller.call(1)
    assert await caller.result() == "done"
