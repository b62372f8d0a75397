"""Status lines and headers as bytes. Pure."""

from http import HTTPStatus

import msgspec

from salver.schema.outcomes import Outcome
from salver.transport.wire import ResponseHead

_decode = msgspec.msgpack.Decoder(ResponseHead).decode
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_NO_BODY = frozenset({204, 304})
_MAX_CACHED = 4096
_MAX_CACHED_SIZE_BYTES = 512


class Head:
    """A response's head, ready to be written but for what differs between requests.

    Attributes:
        text: Status line and headers, without the empty line that ends them.
        sized: The replica gave a content-length.
        bodyless: The status forbids a body.
    """

    __slots__ = ("bodyless", "sized", "status", "text")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.bodyless = status in _NO_BODY or status < 200  # noqa: PLR2004 - informational
        self.sized = False
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))]
        for name, value in headers:
            lower = name.lower()
            if lower in _HOP_BY_HOP:
                continue
            if _breaks_out(name) or _breaks_out(value):
                raise ValueError(f"header {name!r} holds a line break")
            if lower == b"content-length":
                self.sized = True
            parts.append(b"%b: %b\r\n" % (name, value))
        self.text = b"".join(parts)


class Heads:
    """Turns replicas' response heads into bytes; the same head comes again and again, so results are kept."""

    def __init__(self) -> None:
        self._cache: dict[bytes, Head] = {}

    def get(self, encoded: bytes) -> Head:
        """Return the head for a replica's encoded one.

        Raises:
            ValueError: A header would break out of its line.
        """
        head = self._cache.get(encoded)
        if head is None:
            decoded = _decode(encoded)
            head = Head(decoded.status, decoded.headers)
            if len(self._cache) < _MAX_CACHED and len(encoded) <= _MAX_CACHED_SIZE_BYTES:
                self._cache[encoded] = head
        return head


def outcome_head(outcome: Outcome) -> Head:
    """Return the head of an answer that the system makes."""
    return Head(outcome.status, [*outcome.headers, (b"content-length", b"%d" % len(outcome.body))])


def _breaks_out(text: bytes) -> bool:
    return b"\n" in text or b"\r" in text or b"\0" in text
