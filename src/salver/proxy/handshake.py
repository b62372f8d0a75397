"""The opening of a WebSocket: what a client must ask, and what it is answered. Pure; RFC 6455, section 4.2."""

import base64
import binascii
import hashlib
import re

from salver.schema.outcomes import TEXT, Outcome

BAD_KEY = Outcome(400, b"Bad Request: a WebSocket needs one Sec-WebSocket-Key of 16 bytes in base64.")
BAD_SUBPROTOCOLS = Outcome(400, b"Bad Request: Sec-WebSocket-Protocol is no list of names.")
BAD_EXTENSIONS = Outcome(400, b"Bad Request: Sec-WebSocket-Extensions is malformed.")
NO_VERSION = Outcome(400, b"Bad Request: a WebSocket needs one Sec-WebSocket-Version.")
OTHER_VERSION = Outcome(
    426,
    b"Upgrade Required: version 13 of the WebSocket protocol is spoken here.",
    (TEXT, (b"sec-websocket-version", b"13")),
)

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_SIZE_BYTES = 16
_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch

Headers = list[tuple[bytes, bytes]]


def fault_of(headers: Headers) -> Outcome | None:
    """Return the answer to a request that is no proper handshake; None for one that is."""
    versions = values_of(headers, b"sec-websocket-version")
    if len(versions) != 1:
        return NO_VERSION
    if versions[0] != b"13":
        return OTHER_VERSION
    keys = values_of(headers, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return BAD_KEY
    offered = values_of(headers, b"sec-websocket-protocol")
    if not all(_is_token(each.strip()) for value in offered for each in value.split(b",")):
        return BAD_SUBPROTOCOLS
    return None


def answer_to(headers: Headers) -> bytes:
    """Return the proof that a handshake was understood: the value of `sec-websocket-accept`."""
    [key] = values_of(headers, b"sec-websocket-key")
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def values_of(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return the values of a header; names are in lower case."""
    return [value.strip() for name, value in headers if name == wanted]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_SIZE_BYTES
    except binascii.Error:
        return False
