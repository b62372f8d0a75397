"""How processes and zygotes come into the world: forked from a zygote, or spawned as a fresh interpreter."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence

import msgspec

from salver.engine.line import Line
from salver.engine.orders import Born, Fork, Unborn
from salver.engine.outputs import Output, Terminal, open_output
from salver.engine.zygote import Home, spawn_arguments
from salver.lib.processes import signal_group
from salver.lib.tasks import Tasks
from salver.schema.errors import StartFailed
from salver.schema.settings import inherited_environment


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the processes of an agent live.

    Attributes:
        instance_dir: Directory for their sockets.
        lock_fd: The instance's lock, for zygotes that are spawned; forked ones inherit it.
        listeners: Listening sockets that processes may inherit, by name.
    """

    node_id: str
    instance_dir: str
    lock_fd: int
    listeners: Mapping[str, int]


class Zygote(msgspec.Struct, eq=False, kw_only=True):
    """A running zygote, or what will be a process and still waits for orders as a zygote does.

    Attributes:
        output: What it writes; None while it writes where its parent does.
        janitor: Whether it cleans up when the agent is gone.
        unforkable: Why it can only turn into the process it was made for, if so.
        ended: Its wait status, once it was reaped.
    """

    pid: int
    line: Line
    output: Output | None = None
    janitor: bool = False
    unforkable: str | None = None
    born_at: float = msgspec.field(default_factory=time.monotonic)
    ended: asyncio.Future[int] = msgspec.field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def kill(self) -> None:
        """End it, and what users' code started while it was imported."""
        signal_group(self.pid, signal.SIGKILL)
        self.line.close()


class Midwife:
    """Brings processes into the world.

    Args:
        terminal: Shows what zygotes write.
        warm: Modules that a spawned zygote imports while it has nothing else to do.
        tasks: Owns the sending of orders.
    """

    def __init__(self, place: Place, terminal: Terminal, *, warm: Sequence[str], tasks: Tasks) -> None:
        self._place = place
        self._terminal = terminal
        self._warm = warm
        self._tasks = tasks

    def adopt_base(self, pid: int, sock: socket.socket) -> Zygote:
        """Return the zygote that was forked before the loop began."""
        return Zygote(pid=pid, line=Line(sock, tasks=self._tasks), janitor=True)

    async def fork(self, zygote: Zygote, *, for_code: bool = False) -> Zygote:
        """Fork a zygote's twin, which can be ordered to run a process.

        Args:
            for_code: It will load users' code.

        Raises:
            LineClosed: The zygote, or the twin before it was born, is gone.
            StartFailed: The system refused another process.
        """
        ours, theirs = socket.socketpair()
        line = Line(ours, tasks=self._tasks)
        try:
            await zygote.line.send(Fork(for_code), [theirs.fileno()])
            # Ours to close: the end of the line must mean that the twin is gone.
            theirs.close()
            return Zygote(pid=await _pid_from(line), line=line)
        except BaseException:
            line.close()
            raise
        finally:
            theirs.close()

    async def spawn(self, name: str, *, janitor: bool) -> Zygote:
        """Start a zygote in a fresh interpreter.

        Raises:
            LineClosed: It ended before it could say a word.
            StartFailed: The system refused another process.
        """
        output, write_end = await open_output(name, self._terminal.show)
        ours, theirs = socket.socketpair()
        line = Line(ours, tasks=self._tasks)
        try:
            pid = self._spawn_now(theirs.fileno(), write_end, janitor=janitor)
        except OSError as error:
            line.close()
            output.close()
            raise StartFailed(f"the system refused another process: {error.strerror or error}") from error
        finally:
            os.close(write_end)
            theirs.close()
        zygote = Zygote(pid=pid, line=line, output=output, janitor=janitor)
        try:
            await _pid_from(line)
        except BaseException:
            zygote.kill()
            raise
        return zygote

    def _spawn_now(self, line_fd: int, output_fd: int, *, janitor: bool) -> int:
        lock_fd = os.dup(self._place.lock_fd)
        try:
            for fd in (line_fd, lock_fd):
                os.set_inheritable(fd, True)
            command = spawn_arguments(
                line_fd, lock_fd, Home(os.getpid(), self._place.instance_dir, janitor), self._warm
            )
            return os.posix_spawn(
                command[0],
                command,
                inherited_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output_fd, 1),
                    (os.POSIX_SPAWN_DUP2, output_fd, 2),
                ],
                setpgroup=0,
            )
        finally:
            os.close(lock_fd)


async def _pid_from(line: Line) -> int:
    report = await line.receive()
    if isinstance(report, Unborn):
        raise StartFailed(report.reason)
    assert isinstance(report, Born), "the first word on a line"
    return report.pid
