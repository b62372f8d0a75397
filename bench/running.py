"""Starting what is measured, and stopping it with all that it started."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.asks import WrongAnswerError

ROOT = Path(__file__).parents[1]
DEADLINE_S = 90.0
STOPPED_WITHIN_S = 15.0


@dataclass
class Served:
    """A server that has given its first right answer.

    Attributes:
        first_answer_s: Seconds from the command's start to then.
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
def serving(
    command: Sequence[str], port: int, check: Callable[[int], None], environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Run a server in a session of its own until the block ends.

    Args:
        command: What starts it.
        port: Where it will listen.
        check: Raises as long as the server does not answer rightly on a port.
        environment: Further variables.

    Raises:
        RuntimeError: It did not get ready; the message has the end of its output.
    """
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **(environment or {})}
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=ROOT, start_new_session=True)
        try:
            problem = _wait_until_right(port, process, check)
            if problem:
                log.seek(0)
                raise RuntimeError(f"{problem}; output: …{log.read().decode(errors='replace')[-600:]}")
            yield Served(port, process, time.perf_counter() - began)
        finally:
            _stop(process)


def _wait_until_right(port: int, process: subprocess.Popen[bytes], check: Callable[[int], None]) -> str:
    deadline = time.perf_counter() + DEADLINE_S
    problem = ""
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            check(port)
        except (OSError, http.client.HTTPException, WrongAnswerError) as error:
            problem = f": {error}"
            time.sleep(0.002)
        else:
            return ""
    return f"no right answer on port {port} within {DEADLINE_S:g} s (exit code {process.poll()}){problem}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Taken down before the end, because whoever outlives its parent cannot be found afterwards.
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOPPED_WITHIN_S)
    for other in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()  # psutil makes sure that the id still means the same process
    process.kill()
    process.wait()
    psutil.wait_procs(family, STOPPED_WITHIN_S)
