"""Operating-system processes: sessions, groups, death signals and the subreaper. Linux first, macOS where it can."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_SMALLEST_TITLE = 16
_MANY_FILES = 65536

_linux = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if _linux else None


def become_subreaper() -> None:
    """Adopt orphaned descendants, so that one process reaps all. Does nothing where the system cannot."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exit at once if that already happened.

    The kernel looks at the thread that is the parent, and forgets the wish at the next fork.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def set_title(title: str) -> None:
    """Name the process for `ps` and `top`; does nothing where the system cannot."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, title.encode()[:15], 0, 0, 0)
        with contextlib.suppress(OSError, ValueError, IndexError):
            _replace_command_line(title)


def _replace_command_line(title: str) -> None:
    # `ps` reads the arguments from where the kernel put them at exec. A last byte other than 0 tells the kernel that
    # they are a title now, which ends at the first 0.
    start, end = (int(each) for each in _stat_of("self")[45:47])
    room = end - start
    if start > 0 and room > _SMALLEST_TITLE:
        ctypes.memmove(start, title.encode()[: room - 2].ljust(room - 1, b"\0") + b"\1", room)


def open_files_limit() -> int:
    """Return how many files this process may have open, after asking for as many as the system lets it ask for."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if most == resource.RLIM_INFINITY else min(most, _MANY_FILES)
    if now == resource.RLIM_INFINITY or now >= wanted:
        return _MANY_FILES if now == resource.RLIM_INFINITY else now
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        return wanted
    return now


def count_threads() -> int:
    """Return how many threads the operating system runs in this process, native ones included."""
    if _linux:
        return len(os.listdir("/proc/self/task"))
    import psutil  # noqa: PLC0415 - takes longer to import than all of this room

    return psutil.Process().num_threads()


def child_pids() -> list[int]:
    """Return the pids of this process's living children; none where the system does not tell."""
    try:
        tasks = os.listdir("/proc/self/task")
        children = [pid for task in tasks for pid in Path(f"/proc/self/task/{task}/children").read_text().split()]
    except OSError:
        return []
    return [pid for pid in map(int, children) if _is_alive(pid)]


def reap_one(before: Callable[[int], None]) -> tuple[int, int] | None:
    """Collect a child that has ended; return its pid and wait status, or None where none has.

    Args:
        before: Called with the pid while no other process can have it yet (Linux).
    """
    try:
        if not hasattr(os, "waitid"):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid != 0:
                before(pid)
            return (pid, status) if pid != 0 else None
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        before(seen.si_pid)
        return os.waitpid(seen.si_pid, 0)
    except ChildProcessError:
        return None


def processes_of(session_id: int | None, mark: str) -> list[int]:
    """Return the pids of all living processes, but this one, that belong together.

    Args:
        session_id: Their session; None to go by the mark alone.
        mark: "NAME=value" in the environment they were started with; finds those that left the session.
    """
    wanted = os.fsencode(mark)

    def belongs(pid: int) -> bool:
        return (session_id is not None and _session_of(pid) == session_id) or _is_marked(pid, wanted)

    return [pid for pid in _all_pids() if pid != os.getpid() and belongs(pid) and _is_alive(pid)]


def kill_until_gone(find: Callable[[], list[int]], *, within_s: float) -> bool:
    """Kill what `find` finds, again until it finds nothing; return whether that was so in time."""
    deadline = time.monotonic() + within_s
    while pids := find():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that `pid` leads; a group that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def who_listens_on(port: int) -> str | None:
    """Return "name (pid N)" of the process that listens on a TCP port, or None where that cannot be told."""
    import psutil  # noqa: PLC0415 - takes longer to import than all of this room

    try:
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


def _all_pids() -> Iterator[int]:
    if _linux:
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
    else:
        import psutil  # noqa: PLC0415 - takes longer to import than all of this room

        yield from psutil.pids()


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    """Say whether a process runs; a dead one that nobody has reaped yet does not."""
    if not _linux:
        return True
    try:
        return _stat_of(pid)[0] not in {"Z", "X"}
    except OSError:
        return False


def _stat_of(pid: int | str) -> list[str]:
    """Return the fields of a process's stat file from the third (its state) on; the second may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
