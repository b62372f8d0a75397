"""A client that sends what it is told, byte for byte, and reads answers as RFC 9112 has them."""

import socket
import struct
from typing import NamedTuple, Self

ANSWER_WITHIN_S = 10.0


class Answer(NamedTuple):
    """An answer; headers have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection to a proxy.

    Args:
        port: Where the proxy listens on 127.0.0.1.
        receive_buffer_bytes: Size of the system's buffer for what was not read yet; 0 leaves it as it is.
    """

    def __init__(self, port: int, receive_buffer_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(ANSWER_WITHIN_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""

    def send(self, *pieces: bytes) -> None:
        """Send pieces; a proxy that has hung up is no error, because what it said before can still be read."""
        for piece in pieces:
            try:
                self.socket.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                return

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer to a request of this method; interim answers are answers too."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, *_ = head[0].split(" ", 2)
        assert version == "HTTP/1.1", head
        pairs = [line.split(": ", 1) for line in head[1:]]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header twice: {head}"
        return Answer(int(status), headers, self._body(method, int(status), headers))

    def ended(self) -> bool:
        """Wait for the end of the connection; say whether nothing came before it."""
        return self.rest() == b""

    def rest(self) -> bytes:
        """Return all that comes until the connection ends."""
        while self._receive():
            pass
        rest, self._unread = self._unread, b""
        return rest

    def reset(self) -> None:
        """Break the connection, as a client that crashes does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._exactly(2) == b"\r\n"
            return body
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        return self.rest()

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            assert self._receive(), f"the connection ended after {self._unread!r}"
        found, _, self._unread = self._unread.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            assert self._receive(), f"the connection ended {size - len(self._unread)} bytes too early"
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        except TimeoutError:
            raise AssertionError(f"nothing came within {ANSWER_WITHIN_S} s after {self._unread!r}") from None
        self._unread += data
        return bool(data)
