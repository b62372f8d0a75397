"""What makes a process of its own out of a fork: first the ties to the zygote are cut, later it is told what to run."""

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
from collections.abc import Sequence

import msgspec

from salver.engine.base import ProcessContext
from salver.engine.orders import Run
from salver.lib.processes import die_with_parent, set_title
from salver.schema.settings import replace_environment

# What a janitor survives: a signal to all processes at once must not end the one that cleans up.
PATIENT_WITH = (signal.SIGTERM, signal.SIGHUP)


class Job(msgspec.Struct, frozen=True):
    """What a process is to do.

    Attributes:
        listeners: Descriptors of the listening sockets it inherits, in the order of their names.
    """

    order: Run
    listeners: Sequence[int]
    agent_pid: int

    def run(self) -> None:
        """Call the entry; what it raises ends the process like any program."""
        order = self.order
        module, _, function = order.entry.partition(":")
        sockets = [socket.socket(fileno=fd) for fd in self.listeners]
        context = ProcessContext(
            name=order.name,
            node_id=order.node_id,
            instance_dir=order.instance_dir,
            parent_pid=self.agent_pid,
            listeners=dict(zip(order.listeners, sockets, strict=True)),
        )
        try:
            getattr(importlib.import_module(module), function)(order.payload, context)
        except Exception as error:  # noqa: BLE001 - the entry may raise anything, and it is told as if we were not there
            told = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ is not None else None)
            sys.excepthook(type(told), told, told.__traceback__)
            sys.exit(1)


def become_independent(agent_pid: int, forked_by: int) -> None:
    """Make this process a child of the agent that dies with it, in a group and with chances of its own.

    Args:
        forked_by: The process in between, whose end makes the agent our parent.
    """
    for number in PATIENT_WITH:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    while os.getppid() == forked_by:
        time.sleep(0.0001)
    # Not before: the end of the process in between would count as the parent's.
    die_with_parent(agent_pid)
    os.setpgid(0, 0)
    _reseed()
    gc.enable()


def take_job(order: Run, fds: Sequence[int], agent_pid: int) -> Job:
    """Turn this process into the one that was ordered, up to the call of its entry."""
    output, *listeners = fds
    write_to(output)
    replace_environment(order.env)
    set_title(order.name)
    return Job(order, listeners, agent_pid)


def flush_output() -> None:
    """Write out what is buffered; before a fork, or the new process would write it again."""
    for stream in (sys.stdout, sys.stderr):
        # Users' code may have put anything in their place.
        with contextlib.suppress(Exception):
            stream.flush()


def write_to(output: int) -> None:
    """Make a descriptor this process's standard output and error, line by line."""
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
