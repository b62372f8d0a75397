"""Frames in, messages out, and back; the other side is `websockets`' own client."""

import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.proxy.limits import MAX_DEFLATED_SIZE_BYTES, MAX_MESSAGE_SIZE_BYTES
from salver.proxy.socket_frames import Message, SocketFrames, cut_reason
from salver.transport.wire import BYTES, TEXT
from tests.unit.proxy.socket_clients import BAD, DEFLATE, GOOD_CODES, SocketClient, close_frame, frame

CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "websocket").glob("*.bin"))

messages = st.one_of(
    st.builds(Message, st.just(TEXT), st.text(max_size=300).map(str.encode)),
    st.builds(Message, st.just(BYTES), st.binary(max_size=300)),
    st.builds(Message, st.just(BYTES), st.integers(100, 70_000).map(bytes)),
)
cuts = st.lists(st.integers(0, 300), max_size=5).map(tuple)


def pair(*, deflate: bool) -> tuple[SocketFrames, SocketClient]:
    """Return a server and its client."""
    server = SocketFrames([DEFLATE] if deflate else [])
    assert (server.extensions is not None) is deflate
    return server, SocketClient(server.extensions)


def closed_with(server: SocketFrames) -> int | None:
    """Return the code that the server's client reads."""
    client = SocketClient()
    client.read(b"".join(server.take()))
    return client.closed_with[0] if client.closed_with else None


@settings(max_examples=60, deadline=None)
@given(
    sent=st.lists(st.tuples(messages, cuts, st.booleans()), max_size=8),
    step=st.integers(1, 5000),
    deflate=st.booleans(),
)
def test_messages_arrive_as_they_were_sent_however_they_are_cut(
    sent: list[tuple[Message, tuple[int, ...], bool]], step: int, deflate: bool
) -> None:
    server, client = pair(deflate=deflate)
    data = b"".join(client.message(*each) for each in sent)
    received = [message for at in range(0, len(data), step) for message in server.feed(data[at : at + step])]
    assert received == [message for message, _, _ in sent]
    assert server.is_open


@settings(max_examples=60, deadline=None)
@given(sent=st.lists(messages, max_size=8), deflate=st.booleans())
def test_messages_leave_as_they_were_given(sent: list[Message], deflate: bool) -> None:
    server, client = pair(deflate=deflate)
    for message in sent:
        server.send(message)
    assert client.read(b"".join(server.take())) == sent


def test_long_messages_are_sent_as_they_are_among_compressed_ones() -> None:
    server, client = pair(deflate=True)
    sent = [
        Message(BYTES, bytes(MAX_DEFLATED_SIZE_BYTES)),
        Message(BYTES, bytes(MAX_DEFLATED_SIZE_BYTES + 1)),
        Message(TEXT, b"a" * 1000),
    ]
    sizes = []
    for message in sent:
        server.send(message)
        data = b"".join(server.take())
        sizes.append(len(data))
        assert client.read(data) == [message]
    assert sizes[0] < 1000
    assert sizes[1] > MAX_DEFLATED_SIZE_BYTES
    assert sizes[2] < 100


@pytest.mark.parametrize("step", [1, 100_000])
@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD)
def test_what_a_client_must_not_send_closes_with_the_code_for_it(data: bytes, code: int, step: int) -> None:
    server = SocketFrames()
    for at in range(0, len(data), step):
        assert server.feed(data[at : at + step]) == []
    assert not server.is_open
    assert closed_with(server) == code
    assert server.feed(frame(1, b"after the end")) == []


def test_what_came_before_a_mistake_arrives() -> None:
    server = SocketFrames()
    assert server.feed(frame(1, b"one") + frame(2, b"two") + frame(3)) == [
        Message(TEXT, b"one"),
        Message(BYTES, b"two"),
    ]
    assert server.close_code == 1002


@pytest.mark.parametrize("code", GOOD_CODES)
def test_a_close_is_answered_and_says_code_and_reason(code: int) -> None:
    server = SocketFrames()
    server.feed(close_frame(code, "weg, für immer".encode()))
    assert (server.close_code, server.close_reason) == (code, "weg, für immer")
    assert (server.is_open, server.is_over) == (False, True)
    assert closed_with(server) == code


def test_a_close_without_a_code_is_1005_and_a_vanished_client_1006() -> None:
    server = SocketFrames()
    server.feed(frame(8))
    assert server.close_code == 1005
    server = SocketFrames()
    server.feed_eof()
    server.feed_eof()
    assert (server.close_code, server.is_open, server.is_over) == (1006, False, True)


def test_pings_are_answered_within_a_message_too() -> None:
    server = SocketFrames()
    data = frame(1, b"a", fin=False) + frame(9, b"now") + frame(10, b"unasked") + frame(0, b"b")
    assert server.feed(data) == [Message(TEXT, b"ab")]
    assert server.num_pings == 1
    assert b"".join(server.take()) == b"\x8a\x03now"


def test_an_own_ping_and_an_own_close() -> None:
    server, client = pair(deflate=False)
    server.ping()
    assert b"".join(server.take()) == b"\x89\x00"
    server.close(4000, "é" * 100)
    server.close(4001, "again")
    server.send(Message(TEXT, b"after the close"))
    server.ping()
    client.read(b"".join(server.take()))
    assert client.closed_with == (4000, "é" * 61)
    server.feed(client.written())
    assert (server.is_over, server.close_code) == (True, 4000)


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2000, 5000, 70_000])
def test_a_code_that_must_not_be_sent_is_refused(code: int) -> None:
    server = SocketFrames()
    with pytest.raises(ValueError, match=f"{code} is no code"):
        server.close(code, "")
    assert server.is_open


def test_a_reason_is_cut_between_characters() -> None:
    assert cut_reason("x" * 200) == "x" * 123
    assert cut_reason("ab" + "€" * 50) == "ab" + "€" * 40
    assert cut_reason("\ud800") == "?"


@pytest.mark.parametrize("extensions", [b"permessage-deflate; =", b"a b", b"\xff"])
def test_malformed_extensions_are_refused(extensions: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        SocketFrames([extensions])


@pytest.mark.parametrize("extensions", [b"x-unknown", b"permessage-deflate; server_max_window_bits=7"])
def test_extensions_that_are_not_spoken_are_left_out(extensions: bytes) -> None:
    assert SocketFrames([extensions]).extensions is None


def test_a_bomb_does_not_go_off() -> None:
    server = SocketFrames([DEFLATE])
    packer = zlib.compressobj(wbits=-12)
    bomb = packer.compress(bytes(MAX_MESSAGE_SIZE_BYTES + 1)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 100_000
    assert server.feed(frame(2, bomb[:-4], reserved=4)) == []
    assert closed_with(server) == 1009


def test_a_message_in_fragments_is_limited_as_a_whole() -> None:
    server = SocketFrames()
    piece = frame(0, bytes(1 << 20), fin=False)
    server.feed(frame(2, bytes(1 << 20), fin=False))
    for _ in range(15):
        server.feed(piece)
    assert server.is_open
    assert server.feed(frame(0, b"x")) == []
    assert closed_with(server) == 1009


def test_empty_fragments_cost_nothing() -> None:
    server = SocketFrames()
    server.feed(frame(2, fin=False) + frame(0, fin=False) * 10_000)
    assert server.feed(frame(0, b"x")) == [Message(BYTES, b"x")]


def replay(data: bytes, step: int, *, deflate: bool) -> None:
    """Feed anything; whatever comes, the server says what it does next."""
    server = SocketFrames([DEFLATE] if deflate else [])
    for at in range(0, len(data), step):
        for message in server.feed(data[at : at + step]):
            if message.kind == TEXT:
                message.body.decode()
            server.send(message)
        server.take()
    server.feed_eof()
    assert not server.is_open
    assert 1000 <= server.close_code < 5000


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("file", CORPUS, ids=[each.stem for each in CORPUS])
def test_the_corpus_breaks_nothing(file: Path, deflate: bool) -> None:
    for step in (1, 7, 1 << 20):
        replay(file.read_bytes(), step, deflate=deflate)


pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=200),
        fin=st.booleans(),
        reserved=st.sampled_from([0, 0, 0, 4, 7]),
        masked=st.sampled_from([True, True, True, False]),
    ),
    st.sampled_from([each.read_bytes() for each in CORPUS] or [b""]),
)


@settings(max_examples=200, deadline=None)
@given(data=st.lists(pieces, max_size=6).map(b"".join), step=st.integers(1, 300), deflate=st.booleans())
def test_garbage_breaks_nothing(data: bytes, step: int, deflate: bool) -> None:
    replay(data, step, deflate=deflate)
