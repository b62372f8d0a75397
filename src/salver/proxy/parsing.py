"""Requests out of bytes, within limits; a refused one is the last that is parsed."""

import re
from collections.abc import Callable
from typing import Protocol

import httptools

from salver.proxy.limits import (
    MAX_HEADERS,
    MAX_HEADERS_SIZE_BYTES,
    MAX_TARGET_SIZE_BYTES,
    UPLOAD_WINDOW_SIZE_BYTES,
)
from salver.proxy.request import NOTES, Note, Request
from salver.schema.outcomes import Outcome

BAD_REQUEST = Outcome(400, b"Bad Request: this is not HTTP/1.1 as RFC 9112 has it.")
TOO_LONG_TARGET = Outcome(414, b"URI Too Long: at most %d bytes are allowed." % MAX_TARGET_SIZE_BYTES)
TOO_LARGE_HEADERS = Outcome(
    431, b"Request Header Fields Too Large: at most %d bytes in %d fields." % (MAX_HEADERS_SIZE_BYTES, MAX_HEADERS)
)
TOO_LARGE_BODY = Outcome(413, b"Content Too Large: nobody can say how long this body is.")
TOO_SLOW = Outcome(408, b"Request Timeout: the request did not arrive in time.")
UNKNOWN_CODING = Outcome(501, b"Not Implemented: 'chunked' is the only transfer coding here.")
NO_TUNNEL = Outcome(501, b"Not Implemented: there are no tunnels here.")
UNKNOWN_VERSION = Outcome(505, b"HTTP Version Not Supported: HTTP/1.1 and HTTP/1.0 are spoken here.")

_MAX_DIGITS = 18
# RFC 9112 §3.2: a server that takes any other may be used to send a request past those who choose by host.
_is_host = re.compile(rb"(?:[\w.~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?[ \t]*").fullmatch
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
# The parser speaks RTSP and ICE too.
_OTHER_METHODS = frozenset(
    {"SOURCE", "DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "PAUSE"}
    | {"TEARDOWN", "GET_PARAMETER", "SET_PARAMETER", "REDIRECT", "RECORD", "FLUSH"}
)


class Receiver(Protocol):
    """Who takes requests."""

    def on_expectation(self) -> Outcome | None:
        """The client sends the body of the request that is arriving when it is told to; return why it need not."""

    def on_request(self, request: Request) -> None:
        """A request has arrived, or was refused; of one that has begun, the end."""

    def on_body(self, data: bytes) -> None:
        """More of the body of a request that has begun."""

    def on_nonsense(self, data: bytes) -> bool:
        """This is no HTTP/1.1; say whether somebody else understands it."""

    def on_rest(self, data: bytes) -> None:
        """Bytes came after a request that asked for another protocol."""


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
        self._skips_body = False
        self.request = Request()
        self.arriving = False
        self.done = False

    def feed(self, data: bytes) -> None:
        """Parse what a client sent.

        Raises:
            Exception: Whatever the receiver raised, as `HttpParserCallbackError`; nothing more is parsed then.
        """
        if self.done:
            self._on_rest(data)
            return
        self._size = len(data)
        self._fed += self._size
        rest = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            self.done = True
            if not isinstance(error.__context__, _Refused):
                raise
        except httptools.HttpParserError:
            self._on_error(data)
        if rest is not None:
            self._on_upgrade(rest)
        elif self.arriving:
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

    def _on_rest(self, data: bytes) -> None:
        if data and self.request.is_websocket:
            self._receiver.on_rest(data)

    def _on_error(self, data: bytes) -> None:
        if self._receiver.on_nonsense(data):
            self.done = True
        else:
            self.refuse(BAD_REQUEST)

    def _on_upgrade(self, rest: bytes) -> None:
        if not self._skips_body:
            self.done = True
            self._on_rest(rest)
        else:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        """Read the body that the parser has skipped, with one that knows how long it is."""
        self._skips_body = False
        framing = next(header for header in self.request.headers if header[0] in _FRAMING)
        self._parser = httptools.HttpRequestParser(_Body(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % framing)
        if data:
            self.feed(data)

    def _check_arriving(self) -> None:
        """Refuse what the parser keeps although it may never end: headers, trailers, a chunk's extension."""
        request = self.request
        seen = len(request.target) + len(request.headers) + request.trailers_size + request.body_size
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
        request, parser = self.request, self._parser
        if self._head_is_too_large():
            self._stop(TOO_LARGE_HEADERS)
        request.head_done = True
        request.method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            self._check_old(request, version)
        elif not request.has_host:
            self._stop(BAD_REQUEST)
        if request.target == b"*" and request.method != "OPTIONS":
            self._stop(BAD_REQUEST)
        if parser.should_upgrade():
            self._check_upgrade(request, version)
        else:
            request.keep_alive = parser.should_keep_alive()
        if request.expects_continue and (refusal := self._receiver.on_expectation()) is not None:
            self._stop(refusal)

    def _check_upgrade(self, request: Request, version: str) -> None:
        if request.method == "CONNECT":
            self._stop(NO_TUNNEL)
        if request.has_body:
            # Clients that offer HTTP/2 with a POST are answered in HTTP/1.1; the parser leaves the body unread.
            self._skips_body = True
            return
        request.is_websocket = request.method == "GET" and version == "1.1" and _asks_for_websocket(request)

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        request = self.request
        request.body_size += len(body)
        if request.begun:
            self._receiver.on_body(body)
        elif not request.body:
            request.body = body
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += body

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        if self._skips_body or not self.arriving:
            # The second is what comes after a body that was read apart: nobody asked for it.
            return
        request = self.request
        if not request.keep_alive:
            self.done = True
        self.arriving = False
        self._receiver.on_request(request)

    def _check_old(self, request: Request, version: str) -> None:
        if version != "1.0":
            self._stop(UNKNOWN_VERSION)
        if request.method in _OTHER_METHODS:
            self._stop(BAD_REQUEST)
        request.version = version

    def _on_host(self, value: bytes) -> None:
        request = self.request
        if request.has_host or not _is_host(value):
            self._stop(BAD_REQUEST)
        request.has_host = True

    def _on_content_length(self, value: bytes) -> None:
        digits = value.strip().lstrip(b"0")
        self.request.has_body = bool(digits)
        if len(digits) > _MAX_DIGITS:
            self._stop(TOO_LARGE_BODY)
        self.request.is_long = bool(digits) and int(digits) > UPLOAD_WINDOW_SIZE_BYTES

    def _on_transfer_encoding(self, value: bytes) -> None:
        self.request.has_body = self.request.is_long = True
        if self._parser.get_http_version() == "1.0":
            # RFC 9112 §6.1: whoever passed it on did not know chunks, and may have seen another end.
            self._stop(BAD_REQUEST)
        if value.strip().lower() != b"chunked":
            self._stop(UNKNOWN_CODING)

    def _on_expect(self, value: bytes) -> None:
        # Older clients do not know the answer.
        if value.strip().lower() == b"100-continue" and self._parser.get_http_version() == "1.1":
            self.request.expects_continue = True


class _Body:
    """Takes the body of a request whose head is known."""

    def __init__(self, parser: RequestParser) -> None:
        self._parser = parser
        self.on_body = parser.on_body

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self._parser.on_message_complete()
        raise _Refused  # What follows is no request.


def _noted_by(note: Note) -> Callable[[RequestParser, bytes], None]:
    return lambda parser, value: note(parser.request, value)


def _asks_for_websocket(request: Request) -> bool:
    return any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in request.headers)


_SPECIAL: dict[bytes, Callable[[RequestParser, bytes], None]] = {
    b"host": RequestParser._on_host,
    b"content-length": RequestParser._on_content_length,
    b"transfer-encoding": RequestParser._on_transfer_encoding,
    b"expect": RequestParser._on_expect,
    **{name: _noted_by(note) for name, note in NOTES.items()},
}
