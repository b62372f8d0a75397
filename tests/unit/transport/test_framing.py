"""Frames: whole and in order however their bytes arrive; one write a tick; no input harms the loop."""

import asyncio
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.schema.errors import ProtocolError
from salver.transport.framing import FrameConnection
from salver.transport.wire import HEAD, HEAD_SIZE


class Frame(NamedTuple):
    """A frame as a sink gets it."""

    kind: int
    flags: int
    stream: int
    load: int
    header: bytes
    body: bytes


class Sink:
    """Remembers what happened; fails on frames of kind 99."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.closed: list[Exception | None] = []
        self.connection: FrameConnection | None = None

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        if kind == 98:
            raise ProtocolError("not allowed")
        if kind == 99:
            raise LookupError("a bug")
        self.frames.append(Frame(kind, flags, stream, load, header, body))

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.closed.append(error)


class Transport(asyncio.Transport):
    """Remembers what was written, and how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.ended: list[str] = []

    def write(self, data: Any) -> None:
        """Part of asyncio.Transport."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Part of asyncio.Transport."""
        self.ended.append("closed")

    def abort(self) -> None:
        """Part of asyncio.Transport."""
        self.ended.append("aborted")


def opened(max_frame_size_bytes: int = 1 << 20) -> tuple[FrameConnection, Sink, Transport]:
    """Return an open connection."""
    sink, transport = Sink(), Transport()
    connection = FrameConnection(sink, max_frame_size_bytes=max_frame_size_bytes)
    connection.connection_made(transport)
    return connection, sink, transport


def sent(connection: FrameConnection, frame: Frame) -> None:
    """Send a frame."""
    connection.send(frame.kind, frame.stream, frame.header, frame.body, frame.flags, frame.load)


def bytes_of(frame: Frame) -> bytes:
    """Return a frame as it is on the wire."""
    size = len(frame.header) + len(frame.body)
    head = HEAD.pack(size, frame.stream, frame.kind, frame.flags, len(frame.header), frame.load)
    return head + frame.header + frame.body


bytes_u8 = st.integers(0, 97)
bytes_u32 = st.integers(0, 2**32 - 1)
frames = st.builds(
    Frame, bytes_u8, st.integers(0, 255), bytes_u32, bytes_u32, st.binary(max_size=40), st.binary(max_size=200)
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 1500), max_size=12))
async def test_frames_arrive_whole_and_in_order_wherever_their_bytes_are_cut(
    sequence: list[Frame], cuts: list[int]
) -> None:
    writer, _, transport = opened()
    for frame in sequence:
        sent(writer, frame)
    await asyncio.sleep(0)
    stream = b"".join(transport.writes)
    assert stream == b"".join(map(bytes_of, sequence))
    reader, sink, _ = opened()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in pairwise(places):
        if start < end:
            reader.data_received(stream[start:end])
    assert sink.frames == sequence


@given(frames, frames)
async def test_frames_arrive_whole_a_byte_at_a_time(first: Frame, second: Frame) -> None:
    reader, sink, _ = opened()
    for byte in bytes_of(first) + bytes_of(second):
        reader.data_received(bytes([byte]))
    assert sink.frames == [first, second]


@given(st.lists(st.binary(max_size=60), max_size=6))
async def test_garbage_never_harms_the_event_loop(pieces: list[bytes]) -> None:
    reader, sink, transport = opened(max_frame_size_bytes=1000)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    for piece in pieces:
        if not transport.ended:
            reader.data_received(piece)
    assert transport.ended in ([], ["aborted"])
    assert [type(each["exception"]) for each in reported] in ([], [LookupError])
    assert len(sink.frames) <= sum(map(len, pieces)) // HEAD_SIZE


async def test_what_is_sent_in_one_tick_is_one_write() -> None:
    connection, _, transport = opened()
    all_frames = [Frame(1, 0, number, 0, b"head", b"body") for number in range(5)]
    for frame in all_frames:
        sent(connection, frame)
    assert transport.writes == []
    await asyncio.sleep(0)
    assert transport.writes == [b"".join(map(bytes_of, all_frames))]
    sent(connection, all_frames[0])
    await asyncio.sleep(0)
    assert transport.writes[1:] == [bytes_of(all_frames[0])]


async def test_a_frame_that_is_too_large_ends_the_connection_before_it_is_buffered() -> None:
    connection, sink, transport = opened(max_frame_size_bytes=100)
    connection.data_received(HEAD.pack(101, 1, 1, 0, 0, 0))
    assert transport.ended == ["aborted"]
    connection.connection_lost(None)
    assert [str(error) for error in sink.closed] == ["a frame of 101 bytes with a header of 0 is not allowed here"]


@pytest.mark.parametrize("rest", [b"", b"x" * 50], ids=["head only", "whole"])
async def test_a_header_larger_than_its_frame_ends_the_connection(rest: bytes) -> None:
    connection, sink, transport = opened()
    connection.data_received(HEAD.pack(10, 1, 1, 0, 11, 0) + rest)
    assert transport.ended == ["aborted"]
    assert sink.frames == []


async def test_a_protocol_error_of_the_sink_ends_the_connection_and_is_told_to_it() -> None:
    connection, sink, transport = opened()
    connection.data_received(bytes_of(Frame(98, 0, 1, 0, b"", b"")) + bytes_of(Frame(1, 0, 1, 0, b"", b"late")))
    connection.connection_lost(None)
    assert transport.ended == ["aborted"]
    assert [type(error) for error in sink.closed] == [ProtocolError]
    assert sink.frames == []


async def test_a_bug_in_the_sink_ends_its_connection_and_is_reported() -> None:
    connection, sink, transport = opened()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    connection.data_received(bytes_of(Frame(99, 0, 1, 0, b"", b"")))
    connection.connection_lost(None)
    assert transport.ended == ["aborted"]
    assert [type(context["exception"]) for context in reported] == [LookupError]
    assert [type(error) for error in sink.closed] == [LookupError]


async def test_a_header_that_no_frame_can_carry_is_refused_and_nothing_is_sent() -> None:
    connection, _, transport = opened()
    with pytest.raises(ProtocolError, match="cannot carry a header of 65536 and a body of 1 bytes"):
        connection.send(1, 1, b"x" * 65536, b"y")
    await asyncio.sleep(0)
    assert transport.writes == []


async def test_closing_writes_what_is_queued_first() -> None:
    connection, _, transport = opened()
    connection.send(1, 1, b"", b"last words")
    connection.close()
    assert len(transport.writes) == 1
    assert transport.ended == ["closed"]


async def test_a_closed_connection_drops_what_is_sent() -> None:
    connection, _, transport = opened()
    connection.close()
    connection.close()
    connection.send(1, 1, b"", b"too late")
    await asyncio.sleep(0)
    assert (transport.writes, transport.ended) == ([], ["closed"])
    assert connection.closed


async def test_draining_waits_until_the_other_side_reads() -> None:
    connection, _, transport = opened()
    connection.send(1, 1, b"", b"much")
    connection.pause_writing()
    assert connection.congested
    waiting = asyncio.get_running_loop().create_task(connection.drain())
    await asyncio.sleep(0)
    assert len(transport.writes) == 1
    assert not waiting.done()
    connection.resume_writing()
    await asyncio.wait_for(waiting, timeout=1)
    assert not connection.congested


async def test_draining_ends_with_the_connection() -> None:
    connection, _, _ = opened()
    connection.pause_writing()
    waiting = asyncio.get_running_loop().create_task(connection.drain())
    await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.wait_for(waiting, timeout=1)
