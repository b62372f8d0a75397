"""A request out of HTTP/2's headers, which h2 has validated already. Pure."""

import re
from collections.abc import Iterable

from salver.proxy.limits import (
    MAX_HEADERS,
    MAX_HEADERS_SIZE_BYTES,
    MAX_TARGET_SIZE_BYTES,
    UPLOAD_WINDOW_SIZE_BYTES,
)
from salver.proxy.parsing import NO_TUNNEL, TOO_LARGE_HEADERS, TOO_LONG_TARGET
from salver.proxy.request import NOTES, Request
from salver.schema.outcomes import Outcome

BAD_TARGET = Outcome(400, b"Bad Request: the path has characters that no path has.")

_is_target = re.compile(rb"[!-~]+").fullmatch


def read_headers(request: Request, headers: Iterable[tuple[bytes, bytes]]) -> Outcome | None:
    """Put a stream's headers into its request; return why it is refused, or None."""
    pseudo: dict[bytes, bytes] = {}
    cookies: list[bytes] = []
    size = 0
    # Without a length, how long the body is shows at its end.
    request.is_long = True
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name[:1] == b":":
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)
        else:
            _read(request, bytes(name), bytes(value))
    request.method = pseudo.get(b":method", b"").decode("latin-1")
    request.target = bytes(pseudo.get(b":path", b""))
    authority = pseudo.get(b":authority")
    if authority and all(name != b"host" for name, _ in request.headers):
        request.headers.insert(0, (b"host", bytes(authority)))
    if cookies:
        # Clients cut them up, which no application expects.
        request.headers.append((b"cookie", b"; ".join(cookies)))
    request.keep_alive = True
    return _refusal(request, size)


def _read(request: Request, name: bytes, value: bytes) -> None:
    request.headers.append((name, value))
    if (note := NOTES.get(name)) is not None:
        note(request, value)
    elif name == b"content-length":
        request.is_long = value.isdigit() and int(value) > UPLOAD_WINDOW_SIZE_BYTES
    elif name == b"expect":
        request.expects_continue = value.lower() == b"100-continue"


def _refusal(request: Request, size: int) -> Outcome | None:
    if request.method == "CONNECT":
        return NO_TUNNEL
    if len(request.target) > MAX_TARGET_SIZE_BYTES:
        return TOO_LONG_TARGET
    if size > MAX_HEADERS_SIZE_BYTES or len(request.headers) > MAX_HEADERS:
        return TOO_LARGE_HEADERS
    return None if _is_target(request.target) else BAD_TARGET
