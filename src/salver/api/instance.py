"""An instance as its driver sees it: started, asked, stopped. Asynchronous; `verbs` is the same for threads."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from salver.api.client import Client, either
from salver.engine import instances
from salver.lib.clock import MonotonicClock
from salver.schema.conversion import converted, nearest
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import (
    AgentFailed,
    AgentOptions,
    AgentReady,
    Done,
    InstanceEnded,
    Message,
    Notice,
    Output,
    Shutdown,
    StopInstance,
)
from salver.schema.settings import inherited_environment, read_settings
from salver.transport.first_word import send_first_word
from salver.transport.peer import Peer
from salver.transport.sockets import adopt

Report = Output | Notice | InstanceEnded
OnReport = Callable[[Report], None]

START_TIMEOUT_S = 60.0
GONE_TIMEOUT_S = 5.0
EXIT_POLL_S = 0.005

# Only the person at this machine can reach a proxy that listens there, so it may show tracebacks.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_AGENT = "from salver.processes.agent import main; main()"
_Amount = Annotated[float, Meta(ge=0)]


class Declared(NamedTuple):
    """What a machine has, by declaration; None means what is found.

    Attributes:
        num_cpus: CPUs to count with.
        num_gpus: GPUs to count with; they need not exist.
        resources: Custom resources by name.
        strict_cpus: Make replicas wait for free CPUs instead of sharing them.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Mapping[str, float] = MappingProxyType({})
    strict_cpus: bool = False


_DECLARED_TYPES: dict[str, Any] = {
    "num_cpus": _Amount | None,
    "num_gpus": _Amount | None,
    "resources": dict[str, _Amount],
    "strict_cpus": bool,
}


def declared(machine: Mapping[str, Any]) -> Declared:
    """Return what a user says of a machine.

    Raises:
        TypeError: There is no such keyword.
        InvalidOption: A value is not allowed.
    """
    for name in machine:
        if name not in _DECLARED_TYPES:
            raise TypeError(f"unexpected keyword '{name}'.{nearest(name, _DECLARED_TYPES)}")
    return Declared(**{name: converted(name, value, _DECLARED_TYPES[name]) for name, value in machine.items()})


class Instance(Client):
    """A running instance that this process started, and that ends with it."""

    is_guest = False
    http: HTTPOptions

    def __init__(self, directory: Path, lock_fd: int, http: HTTPOptions, on_report: OnReport) -> None:
        super().__init__()
        self.http = http
        self._directory = directory
        self._lock_fd: int | None = lock_fd
        self._on_report = on_report
        self._process: subprocess.Popen[bytes]
        self._ready: asyncio.Future[AgentReady] = asyncio.get_running_loop().create_future()
        self._stopping = False

    @classmethod
    async def launch(
        cls,
        http: HTTPOptions,
        on_report: OnReport,
        machine: Declared | None = None,
    ) -> "Instance":
        """Start an instance and return when its controller can be reached.

        Args:
            http: Where its proxy listens; a host of None means no proxy.
            on_report: Hears what its processes write and what a person should know.
            machine: What this machine has, where it should not be looked up.

        Raises:
            SalverError: It could not start, for a reason such as a port in use.
        """
        machine = machine or Declared()
        instance = cls(*instances.create(read_settings().runtime_dir), http, on_report)
        options = AgentOptions(
            instance_dir=str(instance._directory),
            http=http,
            proxy=http.host is not None,
            num_cpus=machine.num_cpus,
            num_gpus=machine.num_gpus,
            resources=dict(machine.resources),
            strict_cpus=machine.strict_cpus,
            attached=True,
            expose_tracebacks=http.host in LOOPBACK,
        )
        try:
            await instance._start(options)
        except BaseException:
            await instance.stop(drain=False)
            raise
        return instance

    async def stop(self, *, drain: bool = True) -> None:
        """End the instance; with `drain`, requests that run are finished first, for as long as their options say."""
        if self._stopping:
            await asyncio.wait([self.ended])
            return
        self._stopping = True
        with contextlib.suppress(SalverError):
            # Each replica's own time limit bounds this.
            if drain and self._ready.done() and not self.ended.done():
                await self._link.ask(Shutdown(), Done)
        with contextlib.suppress(SalverError, TimeoutError):
            await asyncio.wait_for(self._agent.ask(StopInstance(), Done), GONE_TIMEOUT_S)
        await self._make_sure_it_is_gone()
        if not self.ended.done():
            self.ended.set_result(self._reason or "it was stopped")
        await self.tasks.close()

    async def abandon(self) -> None:
        """End the instance now, while `stop` waits for requests that run."""
        with contextlib.suppress(SalverError):
            await self._agent.ask(StopInstance(), Done)

    async def _start(self, options: AgentOptions) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-c", _AGENT, str(theirs.fileno())]
        # Not as an argument: `ps` would show everybody the password of a private key.
        send_first_word(ours, msgspec.msgpack.encode(options))
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a millisecond, and a thread's would die with it
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**inherited_environment(), instances.MARK: str(self._directory)},
        )
        theirs.close()
        ours.setblocking(False)
        await adopt(ours, self._agent)
        await either(self._ready, self.ended, timeout_s=START_TIMEOUT_S)
        if not self._ready.done():
            raise SalverError(self._reason or f"The instance did not start within {START_TIMEOUT_S:g}s.")
        ready = self._ready.result()
        self._release_lock()
        if ready.http_host is not None and ready.http_port is not None:
            self.http_url = self.http.url_at(ready.http_host, ready.http_port)
        await self._join(ready.controller_address)

    async def _make_sure_it_is_gone(self) -> None:
        """End what an agent that died could not end itself."""
        self._leave()
        process = getattr(self, "_process", None)
        if process is not None:
            await _until_exited(process, GONE_TIMEOUT_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        # Nothing else runs on this loop any more, so blocking it for the moment that this takes does no harm.
        instances.remove_remains(self._directory, None if process is None else process.pid)
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # Office

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Hear the agent; part of Office."""
        match message:
            case AgentReady() if not self._ready.done():
                self._ready.set_result(message)
            case AgentFailed():
                self._reason = message.reason
            case InstanceEnded():
                self._reason = message.reason
                self._on_report(message)
            case Output() | Notice():
                self._on_report(message)

    def on_gone(self, peer: Peer) -> None:
        """The agent is gone, and with it the instance; part of Office."""
        if hasattr(self, "session"):
            # No other controller will come.
            self._link.close()
        if not self.ended.done() and not self._stopping:
            self._reason = self._reason or "The agent died."
            self.ended.set_result(self._reason)


async def _until_exited(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """Wait for a process without a thread: at the end of a program none can be started."""
    clock = MonotonicClock()
    deadline = clock.now() + timeout_s
    while process.poll() is None and clock.now() < deadline:
        await clock.sleep_until(clock.now() + EXIT_POLL_S)
