"""The wire protocol, version 1: frames and what their heads mean.

A frame is a 16-byte head, then `header_size` bytes of msgpack, then raw body bytes::

    size u32 · stream u32 · kind u8 · flags u8 · header_size u16 · load u32        (little endian)

`size` counts header and body. `stream` numbers a request on its connection; 0 is the connection itself. `load` is the
number of requests the sender works on, in frames that a replica answers with.

A full replica answers a request with REJECT and calls the connection back with ROOM, for which it holds a slot: the
caller sends a request marked HELD, or PASS. WAIT asks for that without a request; while the replica is full it is
answered with REJECT on stream 0.
"""

import struct
from typing import Final

import msgspec

VERSION: Final = 1
HEAD: Final = struct.Struct("<IIBBHI")
HEAD_SIZE: Final = HEAD.size
MAX_FRAME_SIZE_BYTES: Final = 0xFFFFFFFF

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
RESPONSE: Final = 20
RESULT: Final = 21
ERROR: Final = 22
REJECT: Final = 23
ROOM: Final = 24

# Flags.
MORE: Final = 1
"""The body continues in CHUNK frames until END."""
HELD: Final = 2
"""The request takes the slot that a ROOM frame held for this connection."""


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
    """Header of an HTTP frame."""

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


class CallHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a CALL frame; the body holds the pickled arguments."""

    method: str
    request_id: str
    route: str
    app_name: str
    multiplexed_model_id: str


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


class CreditHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a CREDIT frame: how many more body bytes the receiver of the body takes."""

    size_bytes: int


class ResponseHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Header of a RESPONSE frame."""

    status: int
    headers: list[tuple[bytes, bytes]]
