"""Bodies that arrive while user code runs; each test is a proxy that sends frames."""

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from salver.replica.http import GRANT_SIZE_BYTES
from salver.transport.wire import CANCEL, CHUNK, CREDIT, END, MORE, RESPONSE, CreditHead, TrailersHead
from tests.unit.replica.callers import Start, encode, settle
from tests.waiting import wait_until


async def test_a_body_comes_in_pieces(start: Start) -> None:
    pieces: list[bytes] = []

    async def total(request: Request) -> int:
        async for piece in request.stream():
            pieces[len(pieces) :] = [piece]
        return sum(map(len, pieces))

    caller = await (await start(total)).caller()
    caller.http(1, b"ab", flags=MORE)
    await wait_until(lambda: pieces == [b"ab"], within_s=5, what="the first piece")
    caller.connection.send(CHUNK, 1, body=b"cde")
    caller.connection.send(END, 1)
    frame = await caller.next()
    assert (frame.kind, frame.body) == (RESPONSE, b"5")
    assert pieces[:2] == [b"ab", b"cde"]


async def test_a_body_can_be_asked_for_whole(start: Start) -> None:
    async def whole(request: Request) -> bytes:
        return await request.body()

    caller = await (await start(whole)).caller()
    caller.http(1, flags=MORE)
    for piece in (b"a", b"b", b"c"):
        caller.connection.send(CHUNK, 1, body=piece)
    caller.connection.send(END, 1)
    assert (await caller.next()).body == b"abc"


async def test_credit_is_given_for_what_user_code_takes_and_for_nothing_else(start: Start) -> None:
    receives: list[Receive] = []

    async def app(request: Request) -> None:
        receives.append(request.receive)
        await request.body()

    piece = b"x" * GRANT_SIZE_BYTES
    caller = await (await start(app)).caller()
    caller.http(1, b"", flags=MORE)
    await wait_until(lambda: bool(receives), within_s=5, what="the handler")
    caller.connection.send(CHUNK, 1, body=piece)
    frame = await caller.next()
    assert frame.kind == CREDIT
    assert msgspec.msgpack.decode(frame.header, type=CreditHead).size_bytes == len(piece)


async def test_nothing_is_granted_while_user_code_does_something_else(start: Start) -> None:
    async def idle(request: Request) -> str:
        return "early"

    caller = await (await start(idle)).caller()
    caller.http(1, b"x" * GRANT_SIZE_BYTES, flags=MORE)
    caller.connection.send(CHUNK, 1, body=b"x" * GRANT_SIZE_BYTES)
    assert (await caller.next()).kind == RESPONSE
    caller.connection.send(CHUNK, 1, body=b"late")
    caller.connection.send(END, 1)
    await settle()
    caller.http(3)
    assert (await caller.next()).stream == 3


async def test_a_cancel_in_the_middle_of_a_body_ends_the_handler(start: Start) -> None:
    ended: list[str] = []

    async def waits(request: Request) -> None:
        try:
            await request.body()
        finally:
            ended.append("ended")

    replica = await start(waits)
    caller = await replica.caller()
    caller.http(1, b"a", flags=MORE)
    await settle()
    caller.connection.send(CANCEL, 1)
    await wait_until(lambda: ended == ["ended"], within_s=5, what="the handler's end")


async def test_trailers_travel_with_the_end(start: Start) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"abc"})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"b", b"2")]})

    class Raw:
        async def __call__(self, request: Request) -> object:
            from starlette.responses import Response

            response = Response()
            response.__class__ = type("Trailing", (Response,), {"__call__": staticmethod(app)})
            return response

    caller = await (await start(Raw)).caller()
    caller.http(1)
    first, end = await caller.next(), await caller.next()
    assert (first.kind, first.flags, first.body) == (RESPONSE, MORE, b"abc")
    assert end.kind == END
    assert msgspec.msgpack.decode(end.header, type=TrailersHead).headers == [(b"a", b"1"), (b"b", b"2")]
    assert encode(TrailersHead([])) != end.header
