"""Bodies that are longer than an application takes."""

from salver.proxy.request import Request
from salver.schema.outcomes import Outcome


def too_long(request: Request, limit: int) -> Outcome | None:
    """Return the refusal of a request whose body is longer than the limit, or is announced to be; else None."""
    if len(request.body) <= limit and _announced(request) <= limit:
        return None
    return too_long_for(limit)


def too_long_for(limit: int) -> Outcome:
    """Return the refusal of a body that is longer than the limit."""
    return Outcome(413, b"Content Too Large: at most %d bytes are allowed." % limit)


def _announced(request: Request) -> int:
    # The parser has seen to it that this is a number of few digits, zeros in front apart, and the only one.
    length = next((value for name, value in request.headers if name == b"content-length"), b"")
    return int(length.strip().lstrip(b"0") or b"0")
