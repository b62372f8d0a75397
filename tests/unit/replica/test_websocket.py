"""WebSockets on the replica; each test is a proxy that sends frames to a plain ASGI application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from salver.handle.request_context import current_request
from salver.replica.asgi import AsgiServing
from salver.replica.lifespan import Lifespan
from salver.replica.websocket import ClientGone
from salver.schema.errors import BackPressureError
from salver.transport.wire import (
    ACCEPTED,
    BYTES,
    CANCEL,
    CHUNK,
    CLOSE,
    CREDIT,
    END,
    ERROR,
    MESSAGE_OVERHEAD_BYTES,
    MORE,
    RESPONSE,
    SOCKET,
    SOCKET_WINDOW_SIZE_BYTES,
    TEXT,
    AcceptedHead,
    CloseHead,
    CreditHead,
    HttpHead,
)
from tests.unit.replica.callers import Client, Frame, Rig, Start, encode, settle

WINDOW = SOCKET_WINDOW_SIZE_BYTES
HEADERS = [(b"host", b"here"), (b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b"c")]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class Nothing:
    """The class behind the application."""


async def serving(start: Start, app: App, **options: Any) -> Rig:
    """Return a replica with this application in front."""
    rig = await start(Nothing, **options)
    rig.server.asgi = AsgiServing(app, _NoLifespan())  # type: ignore[arg-type]
    return rig


class _NoLifespan(Lifespan):
    def __init__(self) -> None:
        self.state = {"shared": [1]}


def open_socket(caller: Client, stream: int = 1, scheme: str = "http", flags: int = 0) -> None:
    """Send a handshake."""
    head = HttpHead(
        "GET", "/shop/ws", b"a=1", "1.1", HEADERS, ("::1", 9), f"request-{stream}", "/shop", "/shop", "/shop/ws"
    )
    caller.connection.send(SOCKET, stream, encode(msgspec.structs.replace(head, scheme=scheme)), b"", flags)


def close_of(frame: Frame) -> CloseHead:
    """Return what a CLOSE says."""
    assert frame.kind == CLOSE, frame
    return msgspec.msgpack.decode(frame.header, type=CloseHead)


def client_closes(caller: Client, code: int, reason: str = "") -> None:
    """Tell of the client's close."""
    caller.send(CLOSE, 1, encode(CloseHead(code, reason)))


async def accepted(caller: Client) -> AcceptedHead:
    """Return the acceptance."""
    frame = await caller.next()
    assert frame.kind == ACCEPTED, frame
    return msgspec.msgpack.decode(frame.header, type=AcceptedHead)


class Recorder:
    """Accepts, keeps what it receives until the client is gone, and can be told to send."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.send: Send
        self.receive: Receive
        self.ended = ""
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve."""
        self.scope, self.send, self.receive = scope, send, receive
        try:
            self.received.append(await receive())
            await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-y", b"z")]})
            while self.received[-1]["type"] != "websocket.disconnect":
                self.received.append(await receive())
            self.ended = "returned"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def test_an_application_sees_a_websocket_scope(start: Start) -> None:
    app = Recorder()
    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    assert await accepted(caller) == AcceptedHead("b", [(b"x-y", b"z")])
    scope = app.scope
    assert scope["state"] == {"shared": [1]}
    assert {key: scope[key] for key in ("type", "scheme", "path", "root_path", "query_string", "http_version")} == {
        "type": "websocket",
        "scheme": "ws",
        "path": "/shop/ws",
        "root_path": "/shop",
        "query_string": b"a=1",
        "http_version": "1.1",
    }
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert scope["client"] == ("::1", 9)
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert app.received == [{"type": "websocket.connect"}]


async def test_behind_tls_the_scheme_says_so(start: Start) -> None:
    app = Recorder()
    caller = await (await serving(start, app)).caller()
    open_socket(caller, scheme="https")
    await accepted(caller)
    assert app.scope["scheme"] == "wss"


async def test_messages_go_both_ways_and_the_context_is_the_requests(start: Start) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": current_request().request_id, "bytes": None})
        for _ in range(2):
            message = await receive()
            await send({**message, "type": "websocket.send"})

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    caller.send(TEXT, 1, body="é".encode())
    caller.send(BYTES, 1, body=b"\xff")
    frames = [await caller.next() for _ in range(5)]
    assert [(frame.kind, frame.body) for frame in frames[:3]] == [
        (TEXT, b"request-1"),
        (TEXT, "é".encode()),
        (BYTES, b"\xff"),
    ]
    assert close_of(frames[3]) == CloseHead(1000, "")
    assert (frames[4].kind, frames[4].load) == (END, 0)
    assert rig.server.admission.taken == 0


async def test_a_socket_uses_a_slot_until_its_handler_has_finished(start: Start) -> None:
    rig = await serving(start, Recorder(), limit=1)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    assert rig.server.admission.taken == 1
    client_closes(caller, 4001, "bye")
    assert (await caller.next()).kind == END
    assert rig.server.admission.taken == 0


async def test_a_close_of_the_client_is_a_disconnect_for_ever_and_no_cancellation(start: Start) -> None:
    app = Recorder()
    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await accepted(caller)
    caller.send(TEXT, 1, body=b"last")
    client_closes(caller, 4001, "bye")
    caller.send(TEXT, 1, body=b"never")
    assert (await caller.next()).kind == END
    last = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
    assert app.received[1:] == [{"type": "websocket.receive", "text": "last"}, last]
    assert (app.ended, await app.receive()) == ("returned", last)


@pytest.mark.parametrize("end", ["client", "connection"])
async def test_who_sends_to_nobody_hears_of_it_and_may_close(start: Start, end: str) -> None:
    results: list[Any] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(WINDOW)})
        except OSError as error:
            results.append(error)
        await send({"type": "websocket.close"})
        await receive()
        results.append(await receive())

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    assert (await caller.next()).kind == BYTES
    await settle()
    assert (caller.received(), results) == ([], [])
    if end == "client":
        client_closes(caller, 1005)
    else:
        caller.connection.abort()
    await settle()
    assert isinstance(results[0], ClientGone)
    assert results[1]["code"] == (1005 if end == "client" else 1006)
    assert rig.server.admission.taken == 0


async def test_a_close_of_the_application_leaves_with_code_and_reason(start: Start) -> None:
    received = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        received.append(await receive())
        with pytest.raises(RuntimeError, match=r"'websocket\.send' after it was closed"):
            await send({"type": "websocket.send", "text": "x"})

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await accepted(caller)
    assert close_of(await caller.next()) == CloseHead(4000, "enough")
    assert (await caller.next()).kind == END
    assert received == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]


WRONG = {
    "send before accept": ([], {"type": "websocket.send", "text": "x"}, RuntimeError, "before it was accepted"),
    "http answer": ([], {"type": "http.response.start", "status": 200}, RuntimeError, "before it was accepted"),
    "body before start": ([], {"type": "websocket.http.response.body"}, RuntimeError, "before it was accepted"),
    "accept twice": (["accept"], {"type": "websocket.accept"}, RuntimeError, "after it was accepted"),
    "denial after accept": (
        ["accept"],
        {"type": "websocket.http.response.start", "status": 403},
        RuntimeError,
        "after it was accepted",
    ),
    "empty message": (["accept"], {"type": "websocket.send"}, ValueError, "neither text nor bytes"),
    "a reserved code": (["accept"], {"type": "websocket.close", "code": 1006}, ValueError, "1006 is no code"),
    "close twice": (["accept", "close"], {"type": "websocket.close"}, RuntimeError, "after it was closed"),
    "accept after close": (["close"], {"type": "websocket.accept"}, RuntimeError, "after it was closed"),
    "lone surrogate": (["accept"], {"type": "websocket.send", "text": "\ud800"}, UnicodeEncodeError, "surrogates"),
}


@pytest.mark.parametrize(("before", "message", "error", "text"), WRONG.values(), ids=WRONG)
async def test_an_application_that_breaks_the_rules_hears_which(
    start: Start, before: list[str], message: dict[str, Any], error: type[Exception], text: str
) -> None:
    raised: list[Exception] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for each in before:
            await send({"type": f"websocket.{each}"})
        try:
            await send(message)
        except (RuntimeError, ValueError) as wrong:
            raised.append(wrong)

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await caller.next()
    assert isinstance(raised[0], error)
    assert text in str(raised[0])


async def test_a_close_before_accepting_denies(start: Start) -> None:
    received = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        received.append(await receive())

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    frame = await caller.next()
    assert (frame.kind, frame.flags, frame.head.status, frame.body) == (RESPONSE, 0, 403, b"Forbidden")
    await settle()
    assert received == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    assert (caller.received(), rig.server.admission.taken) == ([], 0)


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_denial_may_be_any_response(start: Start, pieces: int) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]})
        for number in range(pieces):
            more = number < pieces - 1
            await send({"type": "websocket.http.response.body", "body": b"no", "more_body": more})

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    frame = await caller.next()
    assert (frame.kind, frame.head.status, frame.head.headers, frame.body) == (RESPONSE, 401, [(b"a", b"b")], b"no")
    assert frame.flags == (MORE if pieces > 1 else 0)
    kinds = [(await caller.next()).kind for _ in range(pieces if pieces > 1 else 0)]
    assert kinds == ([CHUNK, CHUNK, END] if pieces > 1 else [])
    await settle()
    assert caller.received() == []


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), 500), (BackPressureError(1, 1, 429), 429), (asyncio.CancelledError(), 500)]
)
async def test_what_is_raised_before_accepting_is_the_answer(start: Start, error: BaseException, status: int) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raise error

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    assert (await caller.next()).head.status == status


async def test_an_application_that_says_nothing_is_an_error(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    assert (await caller.next()).head.status == 500
    assert "has neither accepted nor denied" in caplog.text


@pytest.mark.parametrize("raises", [False, True])
async def test_a_denial_that_is_not_finished_breaks_off(start: Start, raises: bool) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        if raises:
            raise ValueError("x")

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    assert [(await caller.next()).kind for _ in range(2)] == [RESPONSE, ERROR]
    assert rig.server.admission.taken == 0


async def test_what_is_raised_after_accepting_closes_with_1011(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError("in the application")

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    assert close_of(await caller.next()) == CloseHead(1011, "request request-1 failed")
    assert (await caller.next()).kind == END
    assert "in the application" in caplog.text
    assert rig.server.admission.taken == 0


async def test_an_application_that_does_not_catch_the_disconnect_makes_no_noise(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        await send({"type": "websocket.send", "text": "x"})

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await accepted(caller)
    with caplog.at_level(logging.INFO):
        client_closes(caller, 1001)
        assert (await caller.next()).kind == END
    assert caplog.text == ""


async def test_without_an_application_the_handshake_is_a_500(start: Start) -> None:
    rig = await start(Nothing)
    caller = await rig.caller()
    open_socket(caller)
    frame = await caller.next()
    assert (frame.kind, frame.head.status) == (RESPONSE, 500)
    assert b"@serve.ingress" in frame.body
    await settle()
    assert rig.server.admission.taken == 0


# The end of those who wait


@pytest.mark.parametrize("end", ["cancelled", "connection lost", "closed"])
async def test_before_accepting_the_end_of_the_caller_cancels(start: Start, end: str) -> None:
    ended = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            await receive()
            await receive()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await settle()
    _end(rig, caller, end)
    await settle()
    assert (ended, rig.server.admission.taken) == (["cancelled"], 0)


@pytest.mark.parametrize(
    ("end", "expected"), [("cancelled", "cancelled"), ("connection lost", "returned"), ("closed", "cancelled")]
)
async def test_after_accepting_the_loss_of_the_proxy_is_the_clients_and_a_cancel_still_cancels(
    start: Start, end: str, expected: str
) -> None:
    app = Recorder()
    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    _end(rig, caller, end)
    await settle()
    assert (app.ended, rig.server.admission.taken) == (expected, 0)


def _end(rig: Rig, caller: Client, how: str) -> None:
    if how == "cancelled":
        caller.send(CANCEL, 1)
    elif how == "closed":
        rig.server.close()
    else:
        caller.connection.abort()


async def test_a_drain_closes_sockets_with_1001_and_tells_their_handlers(start: Start) -> None:
    app = Recorder()
    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    draining = asyncio.ensure_future(rig.server.drain())
    assert close_of(await caller.next()) == CloseHead(1001, "")
    assert (await caller.next()).kind == END
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1001, "reason": ""}
    caller.connection.close()
    await draining


async def test_a_handshake_that_is_accepted_during_a_drain_is_closed_at_once(start: Start) -> None:
    go_on = asyncio.Event()
    ended = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await go_on.wait()
        await send({"type": "websocket.accept"})
        ended.append(await receive())
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "x"})

    rig = await serving(start, app)
    caller = await rig.caller()
    open_socket(caller)
    await settle()
    draining = asyncio.ensure_future(rig.server.drain())
    await settle()
    assert caller.received() == []
    go_on.set()
    await accepted(caller)
    assert close_of(await caller.next()).code == 1001
    assert (await caller.next()).kind == END
    assert ended[0]["code"] == 1001
    caller.connection.close()
    await draining


# Credit


async def test_the_client_may_send_as_much_again_as_the_application_has_taken(start: Start) -> None:
    app = Recorder()
    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await accepted(caller)
    size = 10_000
    for _ in range(40):
        caller.send(BYTES, 1, body=bytes(size))
    await settle()
    granted = [msgspec.msgpack.decode(each.header, type=CreditHead).size_bytes for each in caller.received()]
    assert 1 < len(granted) < 10
    assert sum(granted) <= 40 * (size + MESSAGE_OVERHEAD_BYTES) < sum(granted) + WINDOW // 8


async def test_an_application_that_takes_nothing_grants_nothing(start: Start) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await accepted(caller)
    caller.send(BYTES, 1, body=bytes(WINDOW))
    await settle()
    assert caller.received() == []
    caller.send(CANCEL, 1)


async def test_an_application_sends_only_as_fast_as_the_client_takes(start: Start) -> None:
    sent = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for number in range(4):
            await send({"type": "websocket.send", "bytes": bytes(WINDOW // 2)})
            sent.append(number)

    caller = await (await serving(start, app)).caller()
    open_socket(caller)
    await settle()
    assert sent == [0, 1]
    caller.send(CREDIT, 1, encode(CreditHead(WINDOW // 2)))
    await settle()
    assert sent == [0, 1, 2]
    caller.send(CREDIT, 1, encode(CreditHead(WINDOW)))
    await settle()
    assert sent == [0, 1, 2, 3]


async def test_text_that_is_no_utf8_is_the_proxys_mistake(start: Start) -> None:
    rig = await serving(start, Recorder())
    caller = await rig.caller()
    open_socket(caller)
    await accepted(caller)
    caller.send(TEXT, 1, body=b"\xff")
    await settle()
    assert caller.connection.closed


async def test_frames_for_sockets_that_are_over_are_dropped(start: Start) -> None:
    rig = await serving(start, Recorder())
    caller = await rig.caller()
    for kind in (TEXT, BYTES, CLOSE):
        caller.send(kind, 77, b"", b"x")
    open_socket(caller)
    await accepted(caller)
    assert not caller.connection.closed
