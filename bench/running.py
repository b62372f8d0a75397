"""Starting what is measured, and stopping it."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

DEADLINE_S = 60.0


@dataclass
class Served:
    """A server that has answered its first request.

    Attributes:
        first_answer_s: Seconds from the command's start to its first 200.
    """

    port: int
    process: subprocess.Popen[bytes]
    first_answer_s: float

    def family(self) -> list[psutil.Process]:
        """Return the server's processes; the command itself, which started them, comes first."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def salver(app: str) -> Iterator[Served]:
    """Serve an application with `salver run`."""
    port = free_port()
    with _serving([sys.executable, "-m", "salver", "run", app, "--port", str(port)], port) as served:
        yield served


@contextlib.contextmanager
def uvicorn(app: str) -> Iterator[Served]:
    """Serve an ASGI application with one uvicorn process, as fast as it goes."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--loop", "uvloop"]
    with _serving([*command, "--http", "httptools", "--log-level", "warning"], port) as served:
        yield served


@contextlib.contextmanager
def _serving(command: list[str], port: int) -> Iterator[Served]:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ.copy())
    try:
        _wait_for_200(port, process)
        yield Served(port, process, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)


def _wait_for_200(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + DEADLINE_S
    while time.perf_counter() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
            connection.request("GET", "/")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.002)
    raise RuntimeError(f"no answer on port {port} within {DEADLINE_S:g} s (exit code {process.poll()})")
