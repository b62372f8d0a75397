"""Clients that keep asking, each on a connection of its own, and count what they are answered."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.waiting import wait_until_sync

_REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Load:
    """Some clients.

    Attributes:
        answers: How often each answer came.
        lost: Requests that had no answer, in words.
    """

    def __init__(self, url: str, clients: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self.answers: Counter[bytes] = Counter()
        self.lost: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def go_on(self, answers: int = 500) -> None:
        """Wait for so many more answers."""
        wanted = self.answers.total() + answers
        wait_until_sync(lambda: self.answers.total() >= wanted, within_s=20, what=f"{answers} more answers")

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            with self._connected() as sock:
                while not self._stop.is_set():
                    try:
                        answer = self._ask(sock)
                    except OSError as error:
                        self.lost.append(repr(error))
                        break
                    self.answers[answer.partition(b"\r\n\r\n")[2]] += 1
                    if b"\r\nconnection: close\r\n" in answer:
                        break

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(self._address, timeout=20) as sock:
            yield sock

    def _ask(self, sock: socket.socket) -> bytes:
        sock.sendall(_REQUEST)
        data = b""
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed after {len(data)} bytes of an answer")
            data += piece
        return data


def _length(data: bytes) -> int:
    head = data.partition(b"\r\n\r\n")[0]
    return int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
