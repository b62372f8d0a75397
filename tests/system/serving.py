"""Real runs for tests: `salver run` and scripts as subprocesses, with all they print, and a look at what they leave."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import psutil

from tests.waiting import wait_until_sync

READY_WITHIN_S = 30.0
GONE_WITHIN_S = 5.0
_URL = re.compile(r"is ready at (https?://\S+)")


class Run:
    """A process that was started, and everything it has written so far.

    Attributes:
        runtime_dir: Where its instance directory is; empty again when nothing is left behind.
    """

    def __init__(self, command: list[str], cwd: Path, runtime_dir: Path, env: Mapping[str, str], stdin: int) -> None:
        self.runtime_dir = runtime_dir
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "SALVER_RUNTIME_DIR": str(runtime_dir), "PYTHONUNBUFFERED": "1", **env},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Return all that it has written."""
        return "\n".join(self._lines)

    def wait_for(self, text: str, within_s: float = READY_WITHIN_S) -> str:
        """Wait until it has written a text; return the line."""
        return self._wait(lambda: next((line for line in self._lines if text in line), None), f"{text!r}", within_s)

    def url(self) -> str:
        """Wait until it is ready; return where."""
        line = self._wait(lambda: next((each for each in self._lines if _URL.search(each)), None), "a URL")
        found = _URL.search(line)
        assert found is not None
        return found[1].rstrip("/")

    def exit_code(self, within_s: float = READY_WITHIN_S) -> int:
        """Wait until it has ended, and for the last of its output."""
        wait_until_sync(
            lambda: self.process.poll() is not None,
            within_s=within_s,
            what=f"the end of the run; output:\n{self.output}",
        )
        self._reader.join(GONE_WITHIN_S)
        return self.process.returncode

    def family(self) -> list[psutil.Process]:
        """Return all of the run's processes, by what `ps` shows: the agent's whole session."""
        agents = self.agents()
        members = []
        for each in psutil.process_iter():
            try:
                if agents and os.getsid(each.pid) in {agent.pid for agent in agents}:
                    members.append(each)
            except OSError:
                continue
        return members

    def agents(self) -> list[psutil.Process]:
        """Return the agent, as the only child that the command has."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.Error:
            return []

    def named(self, prefix: str) -> list[psutil.Process]:
        """Return the run's processes whose name begins so; names are what the kernel keeps, 15 bytes."""
        return [each for each in self.family() if _name(each).startswith(prefix)]

    def signal(self, number: int) -> None:
        """Send the command a signal."""
        self.process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family()
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()
        wait_until_sync(lambda: not alive(family), within_s=GONE_WITHIN_S, what="an end of all processes")
        self._reader.join(GONE_WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.rstrip("\n"))

    def _wait(self, look: Callable[[], str | None], what: str, within_s: float = READY_WITHIN_S) -> str:
        def look_or_end() -> str | None:
            found = look()
            if found is None and self.process.poll() is not None and not self._reader.is_alive():
                raise AssertionError(f"the run ended before {what}; output:\n{self.output}")
            return found

        try:
            return wait_until_sync(look_or_end, within_s=within_s, what=what) or ""
        except AssertionError as error:
            raise AssertionError(f"{error}\noutput:\n{self.output}") from None


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run."""
    found = []
    for each in processes:
        try:
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


class Place:
    """A directory for an application's files and a runtime directory of its own.

    Attributes:
        path: Where files are written and commands run.
    """

    def __init__(self, path: Path, runtime_dir: Path) -> None:
        self.path = path
        self.runtime_dir = runtime_dir

    def write(self, name: str, code: str) -> Path:
        """Write a file."""
        file = self.path / name
        file.write_text(textwrap.dedent(code))
        return file

    def run(self, target: str, *arguments: str, env: Mapping[str, str] | None = None, port: int = 0) -> Run:
        """Start `salver run`."""
        return self.start("-m", "salver", "run", target, "--port", str(port), *arguments, env=env)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL) -> Run:
        """Start a Python process."""
        return Run([sys.executable, *arguments], self.path, self.runtime_dir, env or {}, stdin)

    def leftovers(self) -> list[str]:
        """Return what is in the runtime directory, which goes with its last instance."""
        try:
            return sorted(str(each.relative_to(self.runtime_dir)) for each in self.runtime_dir.rglob("*"))
        except FileNotFoundError:
            # It vanished during the look; the next one tells.
            return ["something"]


@contextmanager
def new_place(path: Path) -> Iterator[Place]:
    """Give a place; its runtime directory has a short name, because paths of Unix sockets may not be long."""
    runtime_dir = Path(tempfile.mkdtemp(prefix="sv-"))
    try:
        yield Place(path, runtime_dir)
    finally:
        shutil.rmtree(runtime_dir, ignore_errors=True)


def get(url: str, **options: object) -> httpx.Response:
    """Send a GET."""
    return httpx.get(url, timeout=30, **options)  # type: ignore[arg-type]
