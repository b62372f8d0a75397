"""The first moments of a process that a zygote forked: cut what ties it to the zygote, then wait for leave to live."""

import contextlib
import gc
import importlib
import io
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from salver.engine.base import ProcessContext
from salver.engine.orders import LIVE, Born, Fork, send_report
from salver.lib.processes import die_with_parent, set_title
from salver.schema.settings import replace_environment

OUTPUT_FD = "output"
LINE_FD = "line"


@dataclass(frozen=True)
class Job:
    """What a new process is to do.

    Attributes:
        listeners: Descriptors of the listening sockets it inherits, by name.
        line: Its line to the agent.
    """

    order: Fork
    listeners: Mapping[str, int]
    line: socket.socket
    agent_pid: int

    def run(self) -> None:
        """Call the entry once the agent gives leave; what the entry raises ends the process like any program."""
        if not self._has_leave():
            os._exit(1)
        self.line.close()
        order = self.order
        set_title(order.name)
        module, _, function = order.entry.partition(":")
        context = ProcessContext(
            name=order.name,
            node_id=order.node_id,
            instance_dir=order.instance_dir,
            parent_pid=self.agent_pid,
            listeners={name: socket.socket(fileno=fd) for name, fd in self.listeners.items()},
        )
        getattr(importlib.import_module(module), function)(order.payload, context)

    def _has_leave(self) -> bool:
        try:
            return self.line.recv(1) == LIVE
        except OSError:
            return False


def begin(order: Fork, fds: dict[str, int], *, agent_pid: int, forked_by: int | None) -> Job:
    """Make this process independent of the zygote it was a moment ago, and report it born.

    Args:
        fds: The descriptors that came with the order, by name.
        forked_by: The process in between, whose end makes the agent our parent; None where there was no fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == forked_by:
        time.sleep(0.0001)
    # Not before: the end of the process in between would count as the parent's.
    die_with_parent(agent_pid)
    os.setpgid(0, 0)
    named = dict(fds)
    _write_to(named.pop(OUTPUT_FD))
    replace_environment(order.env)
    _reseed()
    gc.enable()
    line = socket.socket(fileno=named.pop(LINE_FD))
    send_report(line, Born(os.getpid()))
    return Job(order, named, line, agent_pid)


def flush_output() -> None:
    """Write out what is buffered; before a fork, or the new process would write it again."""
    for stream in (sys.stdout, sys.stderr):
        # Users' code may have put anything in their place.
        with contextlib.suppress(Exception):
            stream.flush()


def _write_to(output: int) -> None:
    flush_output()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(Exception):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _reseed() -> None:
    """Give each process its own chance; forked ones would all draw the same."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None and hasattr(numpy_random, "seed"):
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(random.getrandbits(63))
