"""Anything at any moment: whatever client, replica and time do to a WebSocket, its end is told once."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from salver.transport.wire import (
    BYTES,
    CHUNK,
    CREDIT,
    END,
    ERROR,
    MORE,
    RESPONSE,
    SOCKET_WINDOW_SIZE_BYTES,
    TEXT,
    CreditHead,
    ResponseHead,
)
from tests.unit.proxy.socket_clients import BAD, close_frame, frame
from tests.unit.proxy.test_websocket import Rig, handshake

WINDOW = SOCKET_WINDOW_SIZE_BYTES

Act = Callable[[Rig], Any]


def client(data: bytes) -> Act:
    """Send bytes, unless nothing is read."""

    def send(rig: Rig) -> None:
        if rig.transport.reading and not rig.transport.is_closing():
            rig.send(data)

    return send


def replica(kind: int, head: Any = None, body: bytes = b"", flags: int = 0) -> Act:
    """Send a frame."""

    def say(rig: Rig) -> None:
        exchange = rig.replica.exchange
        if not exchange.abandoned:
            rig.replica.say(kind, head, body, flags)
            # The channel hands out nothing after the last frame.
            exchange.abandoned |= kind in (END, ERROR) or (kind == RESPONSE and not flags & MORE)

    return say


def _pause(rig: Rig) -> None:
    if not rig.socket._congested:
        rig.socket.pause_writing()


def _resume(rig: Rig) -> None:
    if rig.socket._congested:
        rig.socket.resume_writing()


def _die(rig: Rig) -> None:
    if not rig.replica.exchange.abandoned:
        rig.replica.closed = True
        rig.replica.exchange.on_lost("Api#1")
        rig.replica.exchange.abandoned = True


BYTES_OF_CLIENTS = {
    "text": frame(1, b"hello"),
    "bytes": frame(2, bytes(WINDOW)),
    "first fragment": frame(2, b"a", fin=False),
    "last fragment": frame(0, b"b"),
    "pings": frame(9, b"ping") * 70,
    "pong": frame(10),
    "half a frame": frame(1, b"cut off")[:4],
    "close": close_frame(1000),
    "garbage": b"garbage",
    **{name: data for name, (data, _) in BAD.items()},
}
ACTS: dict[str, Act] = {
    "accept": lambda rig: rig.replica.accept(),
    "replica closes": lambda rig: rig.replica.close(1000),
    "replica closes badly": lambda rig: rig.replica.close(1),
    "text": replica(TEXT, body=b"text"),
    "bytes": replica(BYTES, body=bytes(WINDOW // 2)),
    "credit": replica(CREDIT, CreditHead(WINDOW)),
    "denial": replica(RESPONSE, ResponseHead(403, []), b"no"),
    "beginning of a denial": replica(RESPONSE, ResponseHead(403, []), b"no", MORE),
    "chunk": replica(CHUNK, body=b"more"),
    "end": replica(END),
    "error": replica(ERROR),
    "death": _die,
    "pause": _pause,
    "resume": _resume,
    "time": lambda rig: rig.wait(3),
    "much time": lambda rig: rig.wait(21),
    "drain": lambda rig: rig.socket.finish(),
    "eof": lambda rig: rig.socket.eof_received(),
}
ACTS |= {f"client's {name}": client(data) for name, data in BYTES_OF_CLIENTS.items()}


@settings(max_examples=300, deadline=None)
@given(
    first=st.booleans(),
    many=st.lists(st.sampled_from(sorted(ACTS)), max_size=12),
    timeout_s=st.sampled_from([None, 10.0]),
)
def test_whatever_happens_the_end_is_told_once_and_nothing_is_left(
    first: bool, many: list[str], timeout_s: float | None
) -> None:
    rig = Rig(request_timeout_s=timeout_s)
    rig.send(handshake())
    if first:
        rig.replica.accept()
    for act in many:
        if rig.end == "abort":
            break
        ACTS[act](rig)
    rig.leave()
    assert rig.site.open == set()
    told, cancelled = len(rig.replica.closes), len(rig.router.cancelled)
    # A replica that breaks the rules after it was told is cancelled too.
    assert told <= 1
    assert cancelled <= 1
    exchange = rig.replica.exchange
    assert exchange._over
    sent = rig.transport.written
    # What comes after the end changes nothing.
    exchange.abandoned = False
    for each in ("accept", "text", "replica closes", "chunk", "end"):
        ACTS[each](rig)
    assert rig.transport.written == sent
    assert len(rig.replica.closes) == told
