"""Errors of calls as the body of an ERROR frame, and back."""

from contextlib import suppress

import msgspec

from salver.lib.exceptions import PackedException, packed, pickles_itself, unpacked
from salver.lib.tracebacks import user_traceback
from salver.schema.errors import RemoteError, SalverError, as_remote_error
from salver.transport.codec import dumps, loads
from salver.transport.wire import ErrorBody

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ErrorBody).decode


def error_body(kind: str, error: BaseException, traceback: str, where: str = "") -> bytes:
    """Return an error as the body of an ERROR frame.

    Args:
        kind: "salver" for our own errors, "user" for what user code raised.
        where: What raised it; a line of its own before the traceback.
    """
    text = f"{where}\n{traceback}" if where else traceback
    return _encode(ErrorBody(kind, traceback.rpartition("\n")[2], text, _pickled(error)))


def body_of(error: BaseException) -> bytes:
    """Return an error that a call has failed with as the body of an ERROR frame, so that it is the same elsewhere."""
    own = isinstance(error, SalverError) and not isinstance(error, RemoteError)
    return error_body("salver" if own else "user", error, user_traceback(error))


def error_of(body: bytes) -> BaseException:
    """Return the error that an ERROR frame tells of."""
    error = _decode(body)
    try:
        cause = loads(error.pickled) if error.pickled else None
        if isinstance(cause, PackedException):
            cause = unpacked(cause)
    except Exception:  # noqa: BLE001 - a class that cannot be rebuilt here still has its traceback as text
        cause = None
    if isinstance(cause, SalverError) and error.kind == "salver":
        return cause
    return as_remote_error(cause, error.traceback or error.message)


def _pickled(error: BaseException) -> bytes:
    """Pickle an exception: whole, or its type and text, or nothing; the traceback travels anyway, as text."""
    # The user's own classes run here, and may raise anything.
    with suppress(Exception):
        return dumps(error if pickles_itself(error) else packed(error))
    with suppress(Exception):
        return dumps(PackedException(type(error), (str(error),), {}))
    return b""
