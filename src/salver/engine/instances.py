"""Where running instances live: one directory each, locked by all its processes, short enough for Unix sockets.

Every process of an instance holds a shared lock on its directory, by inheriting it. A directory that can be locked
exclusively has none left: the next start removes it. What an instance's processes started in turn may have lost the
lock, but is known by a variable of its environment.
"""

import contextlib
import fcntl
import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from salver.lib.processes import kill_until_gone, processes_of
from salver.schema.errors import EngineUnavailable

MARK = "SALVER_INSTANCE_DIR"
MAX_SOCKET_PATH_SIZE_BYTES = 107 if sys.platform == "linux" else 103
_MAX_SOCKET_NAME_SIZE_BYTES = 24
_SUFFIX = ".sock"
_FACTS = "instance.json"
_INSTANCE = re.compile(r"i-[0-9a-f]{8}")
_REMAINS_S = 3.0


def create(runtime_dir: Path) -> tuple[Path, int]:
    """Make the directory of a new instance, after sweeping stale ones.

    Returns:
        The directory, and a descriptor that holds its lock: to be kept until the agent is ready, which has its own.

    Raises:
        EngineUnavailable: The runtime directory is someone else's, or its path is too long.
    """
    path = runtime_dir / f"i-{os.urandom(4).hex()}"
    if len(os.fsencode(path)) + 1 + _MAX_SOCKET_NAME_SIZE_BYTES > MAX_SOCKET_PATH_SIZE_BYTES:
        raise EngineUnavailable(
            f"The path of the runtime directory {runtime_dir} is too long for Unix sockets. "
            "Set SALVER_RUNTIME_DIR to a shorter one, like /tmp/salver."
        )
    with _runtime_dir(runtime_dir):
        _sweep(runtime_dir)
        path.mkdir(mode=0o700)
        return path, hold(path)


def hold(path: Path) -> int:
    """Take part in an instance: return a descriptor whose inheritance keeps its directory from being swept.

    Raises:
        EngineUnavailable: The directory is gone, or is being swept.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError as error:
        raise EngineUnavailable(f"The instance directory {path} cannot be used: {error.strerror}.") from error
    if os.fstat(lock).st_nlink == 0:
        os.close(lock)
        raise EngineUnavailable(f"The instance directory {path} was removed while the instance started.")
    return lock


def living(runtime_dir: Path) -> list[Path]:
    """Return the directories of the instances that run."""
    return [path for path in _instances(runtime_dir) if not _is_left(path)]


def describe(path: Path, agent_pid: int, driver_pid: int, http_url: str | None) -> None:
    """Write down what others may want to know of an instance that can be reached."""
    facts = {"agent_pid": agent_pid, "driver_pid": driver_pid, "http_url": http_url}
    (path / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


class Found(NamedTuple):
    """An instance that runs.

    Attributes:
        agent_pid: The process that all its others belong to.
        driver_pid: The process that started it.
        http_url: Where its proxy listens, or None without one.
    """

    path: Path
    agent_pid: int
    driver_pid: int
    http_url: str | None

    def __str__(self) -> str:
        return f"{self.path} (process {self.driver_pid}{f', {self.http_url}' if self.http_url else ''})"


def find(path: Path) -> Found | None:
    """Return the instance of a directory; None where it cannot be reached yet, or no more.

    Raises:
        EngineUnavailable: The directory is somebody else's.
    """
    try:
        directory = path.stat()
        if directory.st_uid != os.geteuid() or directory.st_mode & 0o077:
            raise EngineUnavailable(f"The instance directory {path} is not this user's alone; it is not entered.")
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        return None if _is_left(path) else Found(path, **facts)
    except (OSError, ValueError, TypeError):
        return None


def sweep(runtime_dir: Path) -> None:
    """Remove what instances left behind of which no process holds the lock."""
    if runtime_dir.is_dir():
        with _runtime_dir(runtime_dir):
            _sweep(runtime_dir)


def remove(path: Path) -> None:
    """Remove an instance's directory, and the runtime directory with the last one."""
    _remove_tree(path)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def remove_remains(path: Path, session_id: int | None) -> None:
    """End every process of an instance but this one, and remove its directory.

    Args:
        session_id: The session of the instance's agent; None where it may be another's by now.
    """
    kill_until_gone(lambda: processes_of(session_id, f"{MARK}={path}"), within_s=_REMAINS_S)
    remove(path)


def socket_path(instance_dir: str, name: str) -> str:
    """Return where a process of an instance listens; short and without surprises, whatever its name."""
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    if not plain or len(name) > _MAX_SOCKET_NAME_SIZE_BYTES - len(_SUFFIX):
        name = blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{instance_dir}/{name}{_SUFFIX}"


@contextlib.contextmanager
def _runtime_dir(path: Path) -> Iterator[None]:
    """Make the runtime directory if it is missing, and keep other starts out of it meanwhile."""
    while True:
        lock = _open_runtime_dir(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The last instance may have removed it while we waited.
            if os.fstat(lock).st_nlink > 0:
                yield
                return
        finally:
            os.close(lock)


def _open_runtime_dir(path: Path) -> int:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineUnavailable(
            f"The runtime directory {path} cannot be used: {error.strerror}. Set SALVER_RUNTIME_DIR to another."
        ) from error
    found = os.fstat(lock)
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        os.close(lock)
        raise EngineUnavailable(
            f"Others may write to the runtime directory {path}. Set SALVER_RUNTIME_DIR to one that is yours alone."
        )
    return lock


def _is_left(path: Path) -> bool:
    with _stale(path) as is_stale:
        return is_stale


def _instances(runtime_dir: Path) -> list[Path]:
    # Only what has our form of name: the runtime directory may be shared with other things of the user's.
    try:
        return [path for path in runtime_dir.iterdir() if _INSTANCE.fullmatch(path.name)]
    except OSError:
        return []


def _remove_tree(path: Path) -> None:
    import shutil  # noqa: PLC0415 - needed at the end only

    shutil.rmtree(path, ignore_errors=True)


def _sweep(runtime_dir: Path) -> None:
    for path in _instances(runtime_dir):
        with _stale(path) as is_stale:
            if is_stale:
                mark = f"{MARK}={path}"
                kill_until_gone(functools.partial(processes_of, None, mark), within_s=_REMAINS_S)
                _remove_tree(path)


@contextlib.contextmanager
def _stale(path: Path) -> Iterator[bool]:
    """Say whether no process of an instance is left, and let none begin meanwhile."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)
