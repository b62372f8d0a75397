"""The frame decoder against a plain one: the same frames wherever bytes are cut, or an end; and bounded memory."""

import asyncio

from hypothesis import strategies as st

from salver.schema.errors import ProtocolError
from salver.transport.framing import FrameConnection
from salver.transport.wire import HEAD, HEAD_SIZE
from tests.fuzz.mutation import Input, inputs
from tests.unit.transport.test_framing import Frame, bytes_of, opened

MAX_FRAME_SIZE_BYTES = 1000

FRAMES = [
    bytes_of(Frame(10, 0, 1, 0, b"header", b"body")),
    bytes_of(Frame(12, 1, 0xFFFFFFFF, 0xFFFFFFFF, b"", b"x" * 900)),
    bytes_of(Frame(13, 255, 0, 7, b"h" * 300, b"")),
    bytes_of(Frame(0, 0, 0, 0, b"", b"")),
    bytes_of(Frame(97, 0, 3, 0, b"", bytes(range(256)))),
]
WORDS = [
    HEAD.pack(MAX_FRAME_SIZE_BYTES, 1, 10, 0, 0, 0),
    HEAD.pack(MAX_FRAME_SIZE_BYTES + 1, 1, 10, 0, 0, 0),
    HEAD.pack(0xFFFFFFFF, 1, 10, 0, 0xFFFF, 0),
    HEAD.pack(10, 1, 10, 0, 11, 0),
    HEAD.pack(1, 1, 98, 0, 0, 0),
    HEAD.pack(0, 1, 98, 0, 0, 0),
    b"\0",
    b"\xff\xff\xff\xff",
    b"\0" * 16,
    b"x" * 50,
]

cases: st.SearchStrategy[Input] = inputs(FRAMES, WORDS)


def check(case: Input) -> None:
    """Assert that what is delivered is what a plain decoder finds, and that the end comes where it finds an error."""
    asyncio.run(_check(case))


async def _check(case: Input) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    connection, sink, transport = opened(MAX_FRAME_SIZE_BYTES)
    for piece in case.pieces:
        if transport.ended:
            break
        connection.data_received(piece)
        assert _kept_bytes(connection) <= MAX_FRAME_SIZE_BYTES + HEAD_SIZE + len(piece)
    expected, broken = _decoded(case.data)
    assert sink.frames == expected
    assert transport.ended == (["aborted"] if broken else [])
    connection.connection_lost(None)
    assert len(sink.closed) == 1
    assert isinstance(sink.closed[0], ProtocolError) is broken
    assert (reported, _kept_bytes(connection)) == ([], 0)


def _kept_bytes(connection: FrameConnection) -> int:
    return sum(map(len, connection._parts))


def _decoded(data: bytes) -> tuple[list[Frame], bool]:
    frames: list[Frame] = []
    while len(data) >= HEAD_SIZE:
        size, stream, kind, flags, header_size, load = HEAD.unpack_from(data)
        rest = data[HEAD_SIZE:]
        if header_size > size or size > MAX_FRAME_SIZE_BYTES:
            return frames, True
        if len(rest) < size:
            break
        if kind == 98:
            return frames, True
        frames.append(Frame(kind, flags, stream, load, rest[:header_size], rest[header_size:size]))
        data = rest[size:]
    return frames, False
