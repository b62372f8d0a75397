"""Status lines and headers as bytes. Pure."""

import re
from functools import lru_cache
from http import HTTPStatus

import msgspec

from salver.schema.outcomes import Outcome
from salver.transport.wire import ResponseHead, TrailersHead

_decode = msgspec.msgpack.Decoder(ResponseHead).decode
_decode_trailers = msgspec.msgpack.Decoder(TrailersHead).decode
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
# What belongs to one connection is not the replica's to say; the last three are written by the proxy.
_LEFT_OUT = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"content-length", b"date", b"x-request-id"}
)
LEFT_OUT_OF_HANDSHAKES = _LEFT_OUT | {
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
    b"sec-websocket-version",
}
_NO_BODY = frozenset({204, 304})
_MAX_CACHED = 4096
_MAX_CACHED_SIZE_BYTES = 512
_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch


class Head:
    """A response's head, ready to be written but for what differs between requests.

    Attributes:
        text: Status line and headers, without the content-length and the empty line that ends them.
        length: The content-length that the replica gave, or None.
        whole: The text with that content-length.
        bodyless: The status forbids a body.
        fields: The headers in lower case, without the content-length.
    """

    __slots__ = ("bodyless", "fields", "length", "status", "text", "whole")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not 200 <= status <= 999:  # noqa: PLR2004 - what comes before 200 is no answer
            raise ValueError(f"{status} is no status of an answer")
        self.status = status
        self.bodyless = status in _NO_BODY
        lengths = [value for name, value in headers if name.lower() == b"content-length"]
        self.length = _agreed(lengths) if lengths and not self.bodyless else None
        self.fields: list[tuple[bytes, bytes]] = []
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))]
        for name, value in headers:
            lower = name.lower()
            if lower not in _LEFT_OUT:
                parts.append(_line(name, value))
                self.fields.append((lower, value.strip(b" \t")))
        self.text = b"".join(parts)
        self.whole = self.text if self.length is None else b"%bcontent-length: %d\r\n" % (self.text, self.length)

    def sized(self, size: int) -> bytes:
        """Return the head of a body of this size."""
        if self.length == size:
            return self.whole
        return self.text if self.bodyless else b"%bcontent-length: %d\r\n" % (self.text, size)


class Heads:
    """Turns replicas' response heads into bytes; the same head comes again and again, so results are kept."""

    def __init__(self) -> None:
        self._cache: dict[bytes, Head] = {}

    def get(self, encoded: bytes) -> Head:
        """Return the head for a replica's encoded one.

        Raises:
            ValueError: It cannot be written as HTTP.
        """
        return self._cache.get(encoded) or self._read(encoded)

    def _read(self, encoded: bytes) -> Head:
        try:
            decoded = _decode(encoded)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None
        head = Head(decoded.status, decoded.headers)
        if len(encoded) <= _MAX_CACHED_SIZE_BYTES:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[encoded] = head
        return head


def trailer_lines(encoded: bytes) -> bytes:
    """Return a replica's trailers as lines, without those that trailers may not carry.

    Raises:
        ValueError: They cannot be written as HTTP.
    """
    try:
        headers = _decode_trailers(encoded).headers
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return header_lines(headers)


def header_lines(headers: list[tuple[bytes, bytes]], left_out: frozenset[bytes] = _LEFT_OUT) -> bytes:
    """Return headers as lines, but for those that only the proxy may say.

    Raises:
        ValueError: One of them cannot be written.
    """
    return b"".join(_line(name, value) for name, value in headers if name.lower() not in left_out)


def _line(name: bytes, value: bytes) -> bytes:
    if not _is_token(name) or not _is_value(value):
        raise ValueError(f"{name!r}: {value!r} is no header")
    return b"%b: %b\r\n" % (name, value)


def _agreed(lengths: list[bytes]) -> int:
    if len(set(lengths)) != 1 or not _is_length(lengths[0]):
        raise ValueError(f"{lengths} is no content-length")
    return int(lengths[0])


def outcome_head(outcome: Outcome) -> Head:
    """Return the head of an answer that the system makes."""
    return _outcome_head(outcome.status, outcome.headers, len(outcome.body))


@lru_cache(maxsize=1024)
def _outcome_head(status: int, headers: tuple[tuple[bytes, bytes], ...], size: int) -> Head:
    return Head(status, [*headers, (b"content-length", b"%d" % size)])
