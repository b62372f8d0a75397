"""The wire protocol, version 1: frames and what their heads mean.

A frame is a 16-byte head, then `header_size` bytes of msgpack, then raw body bytes::

    size u32 · stream u32 · kind u8 · flags u8 · header_size u16 · load u32        (little endian)

`size` counts header and body. `stream` numbers a request on its connection; 0 is the connection itself. `load` is the
number of requests the sender works on, in frames that a replica answers with.

A full replica answers a request with REJECT and calls the connection back with ROOM, for which it holds a slot: the
caller sends a request marked HELD, or PASS. WAIT asks for that without a request; while the replica is full it is
answered with REJECT on stream 0. RESERVE asks for a slot as a request does, and is answered with RESERVED (or REJECT):
the slot is then held as after ROOM, and RESERVE may itself be HELD.

A body that is not whole has the flag MORE and goes on in CHUNK frames until END, in both directions. Its sender may
have so much on its way as the receiver granted: a window at first, and more with each CREDIT. END may carry trailers.

SOCKET opens a WebSocket with the head of an HTTP request. The replica answers with ACCEPTED, or with a RESPONSE that
denies it; then TEXT, BYTES and CLOSE go both ways, each a whole message, under the same credit: a message may leave
while any is left, and uses its size and `MESSAGE_OVERHEAD_BYTES`. END follows when the handler has finished.

A CALL that streams is answered with the items of a generator, each a CHUNK with a pickled value, then END, or ERROR
where the generator raised. An item may leave while any credit is left, and uses its size and `ITEM_OVERHEAD_BYTES`.
Items have no numbers: their order is that of the frames, and one that the caller could not read has the flag AGAIN when
it comes in parts, and the place of the oldest that is missing. It may come after END.

The payload of a CALL, a RESULT or an item may be large. With the flag SHARED it lies in the sender's memory, the body
says where, and the receiver gives it back with RELEASE; if it cannot map that memory it says UNREADABLE, and gets the
payload AGAIN in PART frames. With the flag PARTS it came in PART frames of the same stream, just before. FORGET tells
the receiver that a piece of shared memory will not be used again.

Results of other calls that are arguments of a CALL follow it in ATTACHMENT frames of its stream, each with its number:
those that the call's form gives a place at once, those by reference when they have come, be it after the answer.
"""

import struct
from typing import Final

import msgspec

from salver.schema.urgency import DEFAULT_URGENCY

VERSION: Final = 1
HEAD: Final = struct.Struct("<IIBBHI")
HEAD_SIZE: Final = HEAD.size
MAX_FRAME_SIZE_BYTES: Final = 0xFFFFFFFF
SOCKET_WINDOW_SIZE_BYTES: Final = 1 << 20
"""A WebSocket's first credit, in both directions."""
MESSAGE_OVERHEAD_BYTES: Final = 128
"""What a WebSocket's message costs beyond its size, so that credit bounds the number of empty ones too."""

ITEM_WINDOW_SIZE_BYTES: Final = 1 << 20
"""The first credit of a call that streams."""
ITEM_OVERHEAD_BYTES: Final = 4096
"""What an item of a stream costs beyond its size, so that at most 256 small ones wait for whoever reads them."""

# Kinds. Requests flow from callers to replicas, answers back.
HELLO: Final = 1
TELL: Final = 2
ASK: Final = 3
ANSWER: Final = 4
FAILED: Final = 5
HTTP: Final = 10
CALL: Final = 11
CHUNK: Final = 12
END: Final = 13
CANCEL: Final = 14
CREDIT: Final = 15
PASS: Final = 16
WAIT: Final = 17
SOCKET: Final = 18
RESERVE: Final = 19
RESPONSE: Final = 20
RESULT: Final = 21
ERROR: Final = 22
REJECT: Final = 23
ROOM: Final = 24
ACCEPTED: Final = 25
TEXT: Final = 26
BYTES: Final = 27
CLOSE: Final = 28
RESERVED: Final = 29

# Kinds of payloads: of large ones, in both directions, and of what is attached to a call. RELEASE and UNREADABLE name a
# loan and FORGET a segment in a u64 header; that of the first PART is the size of all.
PART: Final = 40
RELEASE: Final = 41
FORGET: Final = 42
UNREADABLE: Final = 43
ATTACHMENT: Final = 44

# Flags.
MORE: Final = 1
"""The body continues in CHUNK frames until END."""
HELD: Final = 2
"""The request takes the slot that a ROOM frame held for this connection."""
BROKEN: Final = 4
"""Of an ATTACHMENT: the call has failed; the body is an ErrorBody."""
SHARED: Final = 16
"""The payload lies in the sender's memory; the body is a PayloadHead."""
PARTS: Final = 32
"""The payload came in PART frames; the body is a PayloadHead."""
LARGE: Final = SHARED | PARTS
AGAIN: Final = 64
"""The payload was lent before, and could not be read."""
SPOILED: Final = 1
"""Of a RELEASE: the memory may still be looked at, so nothing else may be written there."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """First frame in both directions.

    Attributes:
        role: What the sender is: driver, controller, agent, proxy, replica, builder, handle.
        name: The sender's process name, for messages and logs.
    """

    version: int
    role: str
    name: str


class HttpHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of an HTTP or a SOCKET frame.

    Attributes:
        timeout_s: How long the client waits from now on; None for as long as it takes.
        scheme: "http" or "https"; a WebSocket's is derived from it.
        urgency: What the calls that it leads to inherit.
    """

    method: str
    path: str
    query: bytes
    http_version: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    request_id: str
    root_path: str
    route: str
    raw_path: str
    timeout_s: float | None = None
    scheme: str = "http"
    multiplexed_model_id: str = ""
    session_id: str = ""
    urgency: int = DEFAULT_URGENCY


class CallForm(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a call differs from the usual.

    Attributes:
        request_encoding: Of the body; see `transport/encodings.py`.
        response_encoding: Of the result, if the call does not fail.
        num_attached: How many ATTACHMENT frames follow.
        places: Which positional or named arguments the first of them are.
    """

    request_encoding: str = ""
    response_encoding: str = ""
    num_attached: int = 0
    places: list[int | str] = []


class AttachmentHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of an ATTACHMENT frame.

    Attributes:
        number: Which one of the call's it is, from 0.
        encoding: Of the body, as that of a RESULT.
    """

    number: int
    encoding: str = ""


class CallHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a CALL frame; the body holds the pickled arguments.

    Attributes:
        timeout_s: How long the caller waits from now on; None for as long as it takes.
        is_streaming: The method is a generator, whose items are wanted one by one.
        urgency: What the calls that it leads to inherit.
        form: How the call differs from the usual, if it does.
    """

    method: str
    request_id: str
    route: str
    app_name: str
    multiplexed_model_id: str
    timeout_s: float | None = None
    session_id: str = ""
    urgency: int = DEFAULT_URGENCY
    is_streaming: bool = False
    form: CallForm | None = None


class ErrorBody(msgspec.Struct, frozen=True, array_like=True):
    """Body of an ERROR frame; a body, because tracebacks may be longer than a header.

    Attributes:
        kind: "salver" for our own errors, "user" for what user code raised, "stream" when an answer broke off.
        pickled: The pickled exception, or nothing where it cannot be pickled.
    """

    kind: str
    message: str
    traceback: str
    pickled: bytes


class SharedMemory(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where in its memory the sender of a payload put it.

    Attributes:
        loan: Names this use of the segment on this connection.
        segment: Names the segment among all of the sender's, for as long as it exists.
        process_id: The sender's.
        file: The segment's file descriptor in that process.
        inode: The segment's, which proves that the descriptor is that of the segment.
        passed_on: The segment is a third process's, and the sender only holds it.
    """

    loan: int
    segment: int
    process_id: int
    file: int
    inode: int
    passed_on: bool = False


class PayloadHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Body of a CALL, a RESULT or a CHUNK with the flag SHARED or PARTS.

    Attributes:
        sizes: Of the pickle and of the buffers that belong to it, in bytes; each begins at the next multiple of 64.
        shared: Where it is, with the flag SHARED.
    """

    sizes: list[int]
    shared: SharedMemory | None = None


class CreditHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a CREDIT frame: how many more body bytes the receiver of the body takes."""

    size_bytes: int


class ResponseHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a RESPONSE frame."""

    status: int
    headers: list[tuple[bytes, bytes]]


class TrailersHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of an END frame that carries trailers."""

    headers: list[tuple[bytes, bytes]]


class AcceptedHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of an ACCEPTED frame.

    Attributes:
        subprotocol: The one of those that the client offered which the application chose, or None.
        headers: What the application adds to the handshake's answer.
    """

    subprotocol: str | None
    headers: list[tuple[bytes, bytes]]


class CloseHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a CLOSE frame: a WebSocket's close code and reason."""

    code: int
    reason: str
