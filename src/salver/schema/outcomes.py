"""Errors as HTTP answers: one table for the proxy and for handlers that did not catch what a call raised."""

import math
from typing import NamedTuple

from salver.lib.tracebacks import encodable
from salver.schema.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaDiedError,
    RequestCancelledError,
    RequestTimeoutError,
)

TEXT = (b"content-type", b"text/plain; charset=utf-8")


class Outcome(NamedTuple):
    """An HTTP answer made by the system."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (TEXT,)


INTERNAL_ERROR = Outcome(500, b"Internal Server Error")


def outcome_of(error: BaseException) -> Outcome:
    """Return the answer for an error; what is not in the table is a 500 without details."""
    # `message`, not `str`: the text of an error that comes from another replica is that replica's traceback.
    match error:
        case BackPressureError():
            retry = error.retry_after_s
            after = () if retry is None else ((b"retry-after", b"%d" % math.ceil(retry)),)
            return Outcome(error.status_code, _body(error.message), (TEXT, *after))
        case DeploymentUnavailableError():
            return Outcome(503, _body(error.message))
        case ReplicaDiedError():
            return Outcome(502, _body(error.message))
        case RequestTimeoutError():
            return Outcome(408, _body(error.message))
        case RequestCancelledError():
            return Outcome(499, _body(error.message))
        case _:
            return INTERNAL_ERROR


def not_found(path: str) -> Outcome:
    """Return the answer for a path that no application has."""
    return Outcome(404, _body(f"Path '{path}' not found. Ping http://.../-/routes for available routes."))


def _body(text: str) -> bytes:
    return encodable(text).encode()
