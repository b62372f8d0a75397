"""Requests out of bytes, within limits; a refused one is the last that is parsed."""

from typing import Protocol

import httptools

from salver.proxy.limits import (
    MAX_BODY_SIZE_BYTES,
    MAX_HEADERS,
    MAX_HEADERS_SIZE_BYTES,
    MAX_REQUEST_ID_SIZE_BYTES,
    MAX_TARGET_SIZE_BYTES,
)
from salver.schema.outcomes import Outcome

BAD_REQUEST = Outcome(400, b"Bad Request: this is not HTTP/1.1 as RFC 9112 has it.")
TOO_LONG_TARGET = Outcome(414, b"URI Too Long: at most %d bytes are allowed." % MAX_TARGET_SIZE_BYTES)
TOO_LARGE_HEADERS = Outcome(
    431, b"Request Header Fields Too Large: at most %d bytes in %d fields." % (MAX_HEADERS_SIZE_BYTES, MAX_HEADERS)
)
TOO_LARGE_BODY = Outcome(413, b"Content Too Large: at most %d bytes are allowed." % MAX_BODY_SIZE_BYTES)
TOO_SLOW = Outcome(408, b"Request Timeout: the request did not arrive in time.")
UNKNOWN_CODING = Outcome(501, b"Not Implemented: 'chunked' is the only transfer coding here.")
NO_UPGRADE = Outcome(501, b"Not Implemented: an upgrade cannot have a body here.")
NO_TUNNEL = Outcome(501, b"Not Implemented: there are no tunnels here.")
UNKNOWN_VERSION = Outcome(505, b"HTTP Version Not Supported: HTTP/1.1 and HTTP/1.0 are spoken here.")

_MAX_DIGITS = 18


class Request:
    """A request, as far as it has arrived.

    Attributes:
        version: "1.1" or "1.0".
        request_id: As the client gave it; empty until the proxy gives one where the client did not.
        keep_alive: The connection may carry another request after this one.
        refused: The answer to a request that is refused; the connection ends with it.
        head_done: What comes now is the body.
        trailers_size: Bytes of what came after the body, and was dropped.
        has_body: Its headers announce a body.
        expects_continue: The client waits for a word before it sends the body.
    """

    __slots__ = (
        "body",
        "expects_continue",
        "has_body",
        "head_done",
        "headers",
        "keep_alive",
        "method",
        "refused",
        "request_id",
        "target",
        "trailers_size",
        "version",
    )

    def __init__(self) -> None:
        self.method = "GET"
        self.target = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: bytes | bytearray = b""
        self.request_id = b""
        self.keep_alive = False
        self.refused: Outcome | None = None
        self.head_done = False
        self.trailers_size = 0
        self.has_body = False
        self.expects_continue = False


class Receiver(Protocol):
    """Who takes requests."""

    def on_expectation(self) -> None:
        """The client sends the body of the request that is arriving when it is told to."""

    def on_request(self, request: Request) -> None:
        """A request has arrived, or was refused."""


class _Refused(Exception):
    """Ends the parsing."""


class RequestParser:
    """Cuts requests out of a client's bytes.

    Attributes:
        request: The one that is arriving, or the last one.
        arriving: A request has begun and not ended.
        done: Nothing more is parsed: a request was refused or the last one, or the receiver wants no more.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._size = 0
        self._fed = 0
        self._seen = 0
        self._unseen = 0
        self.request = Request()
        self.arriving = False
        self.done = False

    def feed(self, data: bytes) -> None:
        """Parse what a client sent.

        Raises:
            Exception: Whatever the receiver raised, as `HttpParserCallbackError`; nothing more is parsed then.
        """
        if self.done:
            return
        self._size = len(data)
        self._fed += self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.done = True  # Nobody here speaks the other protocol.
        except httptools.HttpParserCallbackError as error:
            self.done = True
            if not isinstance(error.__context__, _Refused):
                raise
        except httptools.HttpParserError:
            self.refuse(BAD_REQUEST)
        if self.arriving:
            self._check_arriving()

    def refuse(self, outcome: Outcome) -> None:
        """Hand over the request that is arriving as a refused one, and parse nothing more."""
        if self.done:
            return
        self.done = True
        if not self.arriving:
            self.request = Request()
        self.arriving = False
        self.request.refused = outcome
        self.request.keep_alive = False
        self._receiver.on_request(self.request)

    def _stop(self, outcome: Outcome) -> None:
        """Refuse from within a callback."""
        self.refuse(outcome)
        raise _Refused

    def _check_arriving(self) -> None:
        """Refuse what the parser keeps although it may never end: headers, trailers, a chunk's extension."""
        request = self.request
        seen = len(request.target) + len(request.headers) + request.trailers_size + len(request.body)
        self._unseen = self._unseen + self._size if seen == self._seen else 0
        self._seen = seen
        if self._unseen > MAX_HEADERS_SIZE_BYTES or (not request.head_done and self._head_is_too_large()):
            self.refuse(TOO_LARGE_HEADERS)

    def _head_is_too_large(self) -> bool:
        headers = self.request.headers
        if len(headers) > MAX_HEADERS:
            return True
        # What was fed is more than the headers; mostly so little that nobody needs to count.
        if self._fed <= MAX_HEADERS_SIZE_BYTES:
            return False
        return sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADERS_SIZE_BYTES

    # httptools

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        if self.done:
            raise _Refused
        self.request = Request()
        self.arriving = True
        self._fed = self._size
        self._seen = -1

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol."""
        request = self.request
        request.target += url
        if len(request.target) > MAX_TARGET_SIZE_BYTES:
            self._stop(TOO_LONG_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol; called for trailers too, which are dropped."""
        request = self.request
        if request.head_done:
            request.trailers_size += len(name) + len(value) + 4
            if request.trailers_size > MAX_HEADERS_SIZE_BYTES:
                self._stop(TOO_LARGE_HEADERS)
            return
        name = name.lower()
        request.headers.append((name, value))
        if name in _SPECIAL:
            _SPECIAL[name](self, value)

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        request = self.request
        if self._head_is_too_large():
            self._stop(TOO_LARGE_HEADERS)
        request.head_done = True
        if request.expects_continue:
            self._receiver.on_expectation()

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        request = self.request
        if not request.body:
            request.body = body
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += body
        if len(request.body) > MAX_BODY_SIZE_BYTES:
            self._stop(TOO_LARGE_BODY)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        request, parser = self.request, self._parser
        request.method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                self._stop(UNKNOWN_VERSION)
            request.version = version
        if parser.should_upgrade():
            if request.has_body or request.method == "CONNECT":
                # The parser leaves the body unread.
                self._stop(NO_UPGRADE if request.has_body else NO_TUNNEL)
            self.done = True
        elif parser.should_keep_alive():
            request.keep_alive = True
        else:
            self.done = True
        self.arriving = False
        self._receiver.on_request(request)

    def _on_request_id(self, value: bytes) -> None:
        if not self.request.request_id:
            self.request.request_id = value.strip()[:MAX_REQUEST_ID_SIZE_BYTES]

    def _on_content_length(self, value: bytes) -> None:
        digits = value.strip().lstrip(b"0")
        self.request.has_body = bool(digits)
        if len(digits) > _MAX_DIGITS or (digits and int(digits) > MAX_BODY_SIZE_BYTES):
            self._stop(TOO_LARGE_BODY)

    def _on_transfer_encoding(self, value: bytes) -> None:
        self.request.has_body = True
        if value.strip().lower() != b"chunked":
            self._stop(UNKNOWN_CODING)

    def _on_expect(self, value: bytes) -> None:
        # Older clients do not know the answer.
        if value.strip().lower() == b"100-continue" and self._parser.get_http_version() == "1.1":
            self.request.expects_continue = True


_SPECIAL = {
    b"x-request-id": RequestParser._on_request_id,
    b"content-length": RequestParser._on_content_length,
    b"transfer-encoding": RequestParser._on_transfer_encoding,
    b"expect": RequestParser._on_expect,
}
