"""The real run that conformance tests send their bytes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.recorder import APP, Record, memory_bytes, open_descriptors, record_of
from tests.conformance.sockets import Peer
from tests.system.serving import Run, new_place
from tests.waiting import wait_until_sync

LOOK = b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n"


class Target:
    """A proxy with one replica.

    Attributes:
        port: Where the proxy listens on 127.0.0.1.
        proxies: The proxies' process ids.
        replica: The replica's process id.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.port = int(run.url().rpartition(":")[2].partition("/")[0])
        self._looking = Peer(self.port)
        self.replica = self.look().pid
        self.proxies = self._proxies()

    def peer(self, receive_buffer_bytes: int = 0) -> Peer:
        """Connect."""
        return Peer(self.port, receive_buffer_bytes)

    def look(self) -> Record:
        """Return what the application was asked since the last look."""
        self._looking.send(LOOK)
        return record_of(self._looking.answer().body)

    def close(self) -> None:
        """Hang up."""
        self._looking.socket.close()

    def check_unharmed(self) -> None:
        """Assert that the processes are those of the beginning, and that a new client is served."""
        with self.peer() as other:
            other.send(b"GET /unharmed HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.answer().body == b"/unharmed"
        assert (self._proxies(), self.look().pid) == (self.proxies, self.replica)

    def descriptors(self) -> int:
        """Return how many file descriptors the proxies and the replica have."""
        return sum(open_descriptors(pid) for pid in (*self.proxies, self.replica))

    def memory_bytes(self) -> int:
        """Return the memory of the proxies and the replica."""
        return sum(memory_bytes(pid) for pid in (*self.proxies, self.replica))

    def wait_until_quiet(self, descriptors: int) -> None:
        """Wait until no handler runs and there are no more descriptors than this."""
        wait_until_sync(lambda: self.look().running == 0, within_s=10, what="an end of all handlers")
        wait_until_sync(lambda: self.descriptors() <= descriptors, within_s=10, what=f"{descriptors} descriptors")

    def _proxies(self) -> list[int]:
        return sorted(each.pid for each in self.run.named("proxy"))


@contextmanager
def new_target(path: Path, *arguments: str) -> Iterator[Target]:
    """Start one; `arguments` go to `salver run`."""
    with new_place(path) as place:
        place.write("recorder.py", APP)
        with place.run("recorder:app", *arguments) as run:
            target = Target(run)
            try:
                yield target
            finally:
                target.close()
