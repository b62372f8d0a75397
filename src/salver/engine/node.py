"""One node of the local engine: its resources, its processes, and who they are when they end."""

import asyncio
import contextlib
import os
import signal

import msgspec

from salver.engine.base import CPU, Exit, OnExit, ProcessSpec, Started
from salver.engine.hardware import device_environment
from salver.engine.midwife import Place
from salver.engine.nursery import Nursery
from salver.engine.orders import Run
from salver.engine.outputs import Output, Terminal, open_output
from salver.engine.resources import Grant, Ledger
from salver.lib.processes import reap_one, signal_group
from salver.lib.tasks import Tasks
from salver.schema.errors import StartFailed
from salver.schema.messages import LivingProcess, NodeReport, Processes

# After a process is gone its group is killed, so its output ends at once unless something left the group.
OUTPUT_GRACE_S = 0.5


class _Starting(msgspec.Struct, frozen=True):
    scope: asyncio.Timeout
    """Without a deadline, until someone gives the start up."""


class _Running(msgspec.Struct, frozen=True):
    pid: int
    output: Output
    note: bytes


class Node:
    """Starts, signals and reaps the processes of this machine.

    Args:
        terminal: Shows what processes write.
        tasks: Owns the goodbyes.
    """

    def __init__(self, place: Place, ledger: Ledger, nursery: Nursery, terminal: Terminal, *, tasks: Tasks) -> None:
        self._place = place
        self._ledger = ledger
        self._nursery = nursery
        self._terminal = terminal
        self._tasks = tasks
        self._processes: dict[str, _Starting | _Running] = {}
        self._names: dict[int, str] = {}
        self._starts = 0
        self._unclaimed: dict[int, int] = {}
        self._on_exit: list[OnExit] = []
        self._said_overcommitted = False
        self._empty = asyncio.Event()
        self._empty.set()

    def on_exit(self, callback: OnExit) -> None:
        """Call back for each process that ends."""
        self._on_exit.append(callback)

    def report(self) -> NodeReport:
        """Return what the node has."""
        return NodeReport(self._place.node_id, dict(self._ledger.total), self._ledger.free)

    async def start(self, spec: ProcessSpec) -> Started:
        """Start a process; see `Engine.start`."""
        if spec.name in self._processes:
            raise StartFailed(f"A process named {spec.name} runs already.")
        if missing := set(spec.listeners) - set(self._place.listeners):
            raise StartFailed(f"{spec.name}: this node has no listener named {', '.join(sorted(missing))}.")
        grant = self._ledger.take(spec.name, spec.resources)
        self._say_if_overcommitted()
        self._empty.clear()
        self._starts += 1
        try:
            pid, output = await self._unless_given_up(spec, grant)
        except BaseException:
            self._remove(spec.name)
            raise
        finally:
            self._starts -= 1
            unclaimed = self._unclaimed
            if not self._starts:
                self._unclaimed = {}
        self._processes[spec.name] = _Running(pid, output, spec.note)
        self._names[pid] = spec.name
        if (status := unclaimed.pop(pid, None)) is not None:
            self._ended(pid, status)
        return Started(spec.name, pid, self._place.node_id)

    def give_up_starts(self) -> None:
        """Stop every process that still starts: whoever ordered it is gone."""
        for name, process in list(self._processes.items()):
            if isinstance(process, _Starting):
                self.signal(name, kill=True)

    def living(self) -> Processes:
        """Return the processes that run."""
        running = [(name, each) for name, each in self._processes.items() if isinstance(each, _Running)]
        return Processes(self._place.node_id, tuple(LivingProcess(name, each.pid, each.note) for name, each in running))

    def signal(self, name: str, *, kill: bool) -> None:
        """Signal a process; with `kill`, its whole group. One that still starts is given up."""
        match self._processes.get(name):
            case _Starting(scope) if not scope.expired():
                scope.reschedule(0)
            case _Running(pid) if kill:
                signal_group(pid, signal.SIGKILL)
            case _Running(pid):
                _signal_one(pid, signal.SIGTERM)

    def signal_all(self, *, kill: bool) -> None:
        """Signal every process."""
        for name in list(self._processes):
            self.signal(name, kill=kill)

    async def wait_until_empty(self, timeout_s: float) -> None:
        """Wait until no process runs, at most this long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)

    def reap(self) -> None:
        """Collect every child that has ended; called at SIGCHLD."""
        while (ended := reap_one(self._kill_group)) is not None:
            pid, status = ended
            if pid in self._names:
                self._ended(pid, status)
                continue
            self._nursery.ended(pid, status)
            if self._starts:
                # It may belong to a start whose report is still on its way.
                self._unclaimed[pid] = status

    def _kill_group(self, pid: int) -> None:
        if pid in self._names or self._nursery.owns(pid):
            signal_group(pid, signal.SIGKILL)

    def _ended(self, pid: int, status: int) -> None:
        name = self._names.pop(pid)
        self._tasks.start(self._say_goodbye(name, status), name=f"goodbye {name}")

    async def _say_goodbye(self, name: str, status: int) -> None:
        process = self._processes[name]
        assert isinstance(process, _Running), "only what runs can end"
        last_output = await process.output.finished(OUTPUT_GRACE_S)
        self._remove(name)
        code = os.waitstatus_to_exitcode(status)
        exit_ = Exit(
            name=name,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            last_output=last_output,
        )
        for callback in self._on_exit:
            callback(exit_)

    def _remove(self, name: str) -> None:
        del self._processes[name]
        self._ledger.give_back(name)
        if not self._processes:
            self._empty.set()

    async def _unless_given_up(self, spec: ProcessSpec, grant: Grant) -> tuple[int, Output]:
        scope = asyncio.timeout(None)
        self._processes[spec.name] = _Starting(scope)
        try:
            async with scope:
                pid, output = await self._bear(spec, grant)
        except TimeoutError:
            raise StartFailed(f"{spec.name} was stopped while it started.") from None
        except OSError as error:
            raise StartFailed(f"{spec.name}: the system refused it: {error.strerror or error}.") from error
        if scope.expired():
            signal_group(pid, signal.SIGKILL)
            output.close()
            raise StartFailed(f"{spec.name} was stopped while it started.")
        return pid, output

    async def _bear(self, spec: ProcessSpec, grant: Grant) -> tuple[int, Output]:
        output, write_end = await open_output(spec.name, self._terminal.show)
        # User code sees exactly the GPUs it was given, none included; our own processes need not be told.
        devices = device_environment(sorted(grant.gpus)) if spec.preload is not None else {}
        order = Run(
            name=spec.name,
            entry=spec.entry,
            payload=spec.payload,
            env={**spec.env, **devices},
            listeners=spec.listeners,
            node_id=self._place.node_id,
            instance_dir=self._place.instance_dir,
        )
        try:
            fds = [write_end, *(self._place.listeners[name] for name in spec.listeners)]
            return await self._nursery.bear(order, fds, spec.preload), output
        except BaseException:
            output.close()
            raise
        finally:
            os.close(write_end)

    def _say_if_overcommitted(self) -> None:
        if not self._ledger.cpus_overcommitted or self._said_overcommitted:
            return
        self._said_overcommitted = True
        total = self._ledger.total.get(CPU, 0.0)
        asked = total - self._ledger.free[CPU]
        self._terminal.say(
            f"Replicas ask for {asked:g} CPUs and this machine has {total:g}: they share them. "
            "(strict_cpus makes them wait instead.)"
        )


def _signal_one(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
