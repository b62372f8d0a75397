"""The zygote: a process that holds imported code and forks others from it.

It has one thread and no event loop, because only such a process may be forked safely. It forks twice: the process in
between exits at once, so that the new process becomes a child of the agent (a child subreaper), which reaps all. What
is forked is a zygote too, until it is ordered to run: `serve` then hands a `Job` up to the first frame, so
that the process ends like any program, with its exit handlers.

A zygote whose agent is gone may be the janitor: it ends what is left of the instance and removes its directory.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import msgspec

from salver.engine.birth import PATIENT_WITH, Job, become_independent, flush_output, take_job, write_to
from salver.engine.instances import remove_remains
from salver.engine.orders import Born, Fork, LineClosed, Load, Run, Unborn, receive_order, send_report
from salver.lib.processes import die_with_parent, set_title

FORKING_IS_SAFE_HERE = sys.platform == "linux"
# A parent's sockets close a moment before its children get another parent.
AGENT_DEATH_S = 1.0


class Home(msgspec.Struct, frozen=True):
    """The instance a zygote belongs to.

    Attributes:
        agent_pid: Its parent, and that of all it forks.
        janitor: Whether it cleans up when the agent is gone.
    """

    agent_pid: int
    instance_dir: str
    janitor: bool


def serve(line: socket.socket, home: Home, warm: Iterable[str] = ()) -> Job:
    """Follow orders until one is to run something, which it returns, or the agent is gone.

    Args:
        warm: Modules to import while there is nothing else to do, so that what is forked need not.
    """
    set_title("salver zygote")
    _ignore(signal.SIGINT, *(PATIENT_WITH if home.janitor else ()))
    cold = deque(warm)
    while True:
        _warm_up(cold, line)
        try:
            order, fds = receive_order(line)
        except LineClosed:
            _end(home)
        match order:
            case Run():
                line.close()
                return take_job(order, fds, home.agent_pid)
            case Load():
                _load(order, fds[0], line)
            case Fork(for_code):
                if for_code:
                    _warm_up(cold)
                twin_line = _fork_twin(fds[0], line, home.agent_pid)
                if twin_line is not None:
                    line, cold = twin_line, deque()
                    home = msgspec.structs.replace(home, janitor=False)


def main() -> None:
    """Run a zygote in a fresh interpreter; for the arguments see `spawn_arguments`."""
    line_fd, lock_fd, agent_pid, instance_dir, janitor, *warm = sys.argv[1:]
    # What this process starts must not keep them: the line's end means that the zygote is gone.
    os.set_inheritable(int(line_fd), False)
    os.set_inheritable(int(lock_fd), False)
    sys.argv[1:] = []
    home = Home(int(agent_pid), instance_dir, janitor == "janitor")
    if not home.janitor:
        die_with_parent(home.agent_pid)
    line = socket.socket(fileno=int(line_fd))
    send_report(line, Born(os.getpid()))
    serve(line, home, warm).run()


def spawn_arguments(line_fd: int, lock_fd: int, home: Home, warm: Iterable[str]) -> list[str]:
    """Return the command that runs `main` with descriptors it inherits."""
    return [
        *(sys.executable, "-P", "-c", "from salver.engine.zygote import main; main()", str(line_fd), str(lock_fd)),
        *(str(home.agent_pid), home.instance_dir, "janitor" if home.janitor else "plain", *warm),
    ]


def _is_waiting(line: socket.socket) -> bool:
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))


def _ignore(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _warm_up(cold: deque[str], line: socket.socket | None = None) -> None:
    """Import what is not imported yet; with a line, only until an order comes."""
    gc.disable()
    while cold and (line is None or not _is_waiting(line)):
        # Whoever needs it will see why it cannot be imported.
        with contextlib.suppress(Exception):
            importlib.import_module(cold.popleft())
    gc.enable()


def _load(order: Load, output: int, line: socket.socket) -> None:
    from salver.engine.user_import import load_and_report  # noqa: PLC0415 - not on the way of the first processes

    write_to(output)
    set_title(order.name)
    report = load_and_report(order.preload)
    flush_output()
    send_report(line, report)


def _fork_twin(line_fd: int, line: socket.socket, agent_pid: int) -> socket.socket | None:
    """Fork; return the twin's line in the twin, None in the zygote."""
    flush_output()
    # What is here now is not for the garbage collector of any fork: looking at it would copy it.
    gc.freeze()
    forked_by = _fork_twice(line_fd)
    if forked_by is None:
        os.close(line_fd)
        return None
    line.close()
    become_independent(agent_pid, forked_by)
    twin_line = socket.socket(fileno=line_fd)
    send_report(twin_line, Born(os.getpid()))
    return twin_line


def _fork_twice(line_fd: int) -> int | None:
    """Fork; return the pid of the process in between in the twin, None in the zygote."""
    between = _fork(line_fd)
    if between == 0:
        between = os.getpid()
        if _fork(line_fd) == 0:
            return between
        os._exit(0)
    if between is not None:
        # Users' code may have told the system to forget our children.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(between, 0)
    return None


def _fork(line_fd: int) -> int | None:
    try:
        return os.fork()
    except OSError as error:
        with socket.socket(fileno=os.dup(line_fd)) as line:
            send_report(line, Unborn(f"the system refused another process: {error.strerror or error}"))
        return None


def _end(home: Home) -> NoReturn:
    if home.janitor and _is_orphan(home.agent_pid):
        remove_remains(Path(home.instance_dir), os.getsid(0))
    # Not by an exception: exit handlers of users' modules are for the processes that run them.
    os._exit(0)


def _is_orphan(agent_pid: int) -> bool:
    deadline = time.monotonic() + AGENT_DEATH_S
    while os.getppid() == agent_pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
