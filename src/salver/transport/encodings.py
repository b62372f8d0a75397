"""How arguments and results of a call are encoded: pickled unless its caller chose another way for other languages."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from salver.transport.codec import LARGE_SIZE_BYTES, Pickled, loads
from salver.transport.payloads import Arrival, Payload, pack
from salver.transport.segments import process_pool

PICKLE = ""

# By the names that callers use. What plain pickle refuses is pickled by value in any case, so the first two are one.
ENCODINGS = {"cloudpickle": PICKLE, "pickle": PICKLE, "msgpack": "msgpack", "orjson": "json"}

_ENCODERS: dict[str, Callable[[Any], bytes]] = {"msgpack": msgspec.msgpack.encode, "json": msgspec.json.encode}
_DECODERS: dict[str, Callable[[Any], Any]] = {"msgpack": msgspec.msgpack.decode, "json": msgspec.json.decode}


def pack_as(value: Any, encoding: str) -> bytes | Payload:
    """Encode a value: into bytes if it is small, else into a payload.

    Raises:
        Exception: Whatever encoding raised.
    """
    if not encoding:
        return pack(value)
    data = _ENCODERS[encoding](value)
    return data if len(data) < LARGE_SIZE_BYTES else Payload(Pickled([data], []), process_pool())


def decode(raw: bytes | Arrival, encoding: str = PICKLE) -> Any:
    """Return the value that was encoded.

    Raises:
        Exception: Whatever decoding raised.
    """
    if not encoding:
        return loads(raw) if isinstance(raw, bytes) else raw.load()
    decoder = _DECODERS[encoding]
    if isinstance(raw, bytes):
        return decoder(raw)

    def load(data: memoryview, _buffers: Sequence[memoryview]) -> Any:
        return decoder(data)

    return raw.load(load)
