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
from typing import Any, NamedTuple

import msgspec

from salver.engine import instances
from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.handle.session import Session
from salver.lib.tasks import Tasks
from salver.schema.application import ApplicationSpec, Preload
from salver.schema.errors import Disconnected, ProtocolError, SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import (
    STATUS_TOPIC,
    AgentFailed,
    AgentOptions,
    AgentReady,
    BuildAndDeploy,
    Delete,
    Deploy,
    Done,
    GetStatus,
    InstanceEnded,
    Message,
    Notice,
    Output,
    Shutdown,
    Status,
    StatusReport,
    StopInstance,
    TopicValue,
)
from salver.schema.settings import read_settings
from salver.schema.status import ApplicationStatus, ApplicationStatusOverview, ProxyStatus, ServeStatus
from salver.transport.peer import Peer
from salver.transport.sockets import adopt

Report = Output | Notice | InstanceEnded
OnReport = Callable[[Report], None]

START_TIMEOUT_S = 60.0
GONE_TIMEOUT_S = 5.0

_AGENT = "from salver.processes.agent import main; main()"


class DeployFailed(SalverError, RuntimeError):
    """An application could not be deployed; the message has the reason, with the user's own traceback."""


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


class Instance:
    """A running instance that this process started, and that ends with it.

    Attributes:
        http_url: Where its proxy listens, or None without one.
        session: For handles.
        ended: Done when the instance is gone; its result is the reason.
    """

    def __init__(self, directory: Path, lock_fd: int, on_report: OnReport) -> None:
        self._directory = directory
        self._lock_fd: int | None = lock_fd
        self._on_report = on_report
        self._tasks = Tasks(on_error=_complain)
        self._agent = Peer(self, role="driver", name=f"driver-{os.getpid()}", tasks=self._tasks)
        self._process: subprocess.Popen[bytes]
        self._ready: asyncio.Future[AgentReady] = asyncio.get_running_loop().create_future()
        self._link: ControllerLink
        self._reason = ""
        self._stopping = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.http_url: str | None = None
        self.session: Session

    @classmethod
    async def launch(
        cls,
        http: HTTPOptions,
        on_report: OnReport,
        declared: "Declared | None" = None,
        *,
        expose_tracebacks: bool = False,
    ) -> "Instance":
        """Start an instance and return when its controller can be reached.

        Args:
            http: Where its proxy listens; a host of None means no proxy.
            on_report: Hears what its processes write and what a person should know.
            declared: What this machine has, where it should not be looked up.
            expose_tracebacks: Put users' tracebacks into 500 answers.

        Raises:
            SalverError: It could not start, for a reason such as a port in use.
        """
        declared = declared or Declared()
        instance = cls(*instances.create(read_settings().runtime_dir), on_report)
        options = AgentOptions(
            instance_dir=str(instance._directory),
            http=http,
            proxy=http.host is not None,
            num_cpus=declared.num_cpus,
            num_gpus=declared.num_gpus,
            resources=dict(declared.resources),
            strict_cpus=declared.strict_cpus,
            attached=True,
            expose_tracebacks=expose_tracebacks,
        )
        try:
            await instance._start(options)
        except BaseException:
            await instance.stop(drain=False)
            raise
        return instance

    async def deploy(self, spec: ApplicationSpec) -> None:
        """Deploy a built application; returns when the wish is saved."""
        await self._link.ask(Deploy(spec), Done)

    async def build_and_deploy(
        self, import_path: str, arguments: Mapping[str, str], *, name: str, route_prefix: str | None, preload: Preload
    ) -> None:
        """Build an application from an import path and deploy it; returns when its code is in memory."""
        order = BuildAndDeploy(
            import_path=import_path, arguments=dict(arguments), name=name, route_prefix=route_prefix, preload=preload
        )
        await self._link.ask(order, Done)

    async def until_running(self, name: str, on_status: Callable[[ServeStatus], None] | None = None) -> None:
        """Wait until an application runs and the proxy serves it.

        Args:
            on_status: Hears each status on the way.

        Raises:
            DeployFailed: It failed.
            Disconnected: The instance is gone.
        """
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(value: TopicValue) -> None:
            if not isinstance(value, Status) or settled.done():
                return
            if on_status is not None:
                on_status(value.status)
            _settle(settled, name, value.status)

        self._link.subscribe(STATUS_TOPIC, look)
        try:
            await _either(settled, self.ended)
        finally:
            self._link.unsubscribe(STATUS_TOPIC, look)
        if not settled.done():
            raise Disconnected(self._reason or "the instance ended")
        settled.result()

    def watch_status(self, on_status: Callable[[ServeStatus], None]) -> None:
        """Call back with the status now and at each change."""
        self._link.subscribe(STATUS_TOPIC, lambda value: on_status(value.status) if isinstance(value, Status) else None)

    async def status(self) -> ServeStatus:
        """Return the status of the instance."""
        return (await self._link.ask(GetStatus(), StatusReport)).status

    async def delete(self, name: str) -> None:
        """Drain and remove an application; returns when it is gone."""
        await self._link.ask(Delete(name), Done)

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
        await self._tasks.close()

    async def abandon(self) -> None:
        """End the instance now, while `stop` waits for requests that run."""
        with contextlib.suppress(SalverError):
            await self._agent.ask(StopInstance(), Done)

    async def _start(self, options: AgentOptions) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-c", _AGENT, str(theirs.fileno()), msgspec.msgpack.encode(options).hex()]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a millisecond, and a thread's would die with it
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        ours.setblocking(False)
        await adopt(ours, self._agent)
        await _either(self._ready, self.ended, timeout_s=START_TIMEOUT_S)
        if not self._ready.done():
            raise SalverError(self._reason or f"The instance did not start within {START_TIMEOUT_S:g}s.")
        ready = self._ready.result()
        self._release_lock()
        if ready.http_host is not None:
            host = f"[{ready.http_host}]" if ":" in ready.http_host else ready.http_host
            self.http_url = f"http://{host}:{ready.http_port}"
        self._link = ControllerLink(role="driver", name=f"driver-{os.getpid()}", tasks=self._tasks)
        await self._link.connect(ready.controller_address)
        routers = Routers(self._link, role="driver", name=f"driver-{os.getpid()}", tasks=self._tasks)
        self.session = Session(asyncio.get_running_loop(), self._link, routers, ready.controller_address)

    async def _make_sure_it_is_gone(self) -> None:
        """End what an agent that died could not end itself."""
        if hasattr(self, "session"):
            self.session.closed = True
            self.session.routers.close()
            self._link.close()
        self._agent.close()
        process = getattr(self, "_process", None)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, GONE_TIMEOUT_S)
            if process.poll() is None:
                process.kill()
                await asyncio.to_thread(process.wait)
        session_id = None if process is None else process.pid
        await asyncio.to_thread(instances.remove_remains, self._directory, session_id)
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """An agent asks its driver nothing; part of Office."""
        raise ProtocolError(f"a driver does not answer {type(message).__name__}")

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
        if not self.ended.done() and not self._stopping:
            self._reason = self._reason or "The agent died."
            self.ended.set_result(self._reason)


async def _either(first: asyncio.Future[Any], second: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    await asyncio.wait({first, second}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _settle(settled: "asyncio.Future[None]", name: str, status: ServeStatus) -> None:
    application = status.applications.get(name)
    if application is None:
        return
    if application.status is ApplicationStatus.DEPLOY_FAILED:
        settled.set_exception(DeployFailed(failure_text(name, application)))
    elif application.status is ApplicationStatus.RUNNING and all(
        each is ProxyStatus.HEALTHY for each in status.proxies.values()
    ):
        settled.set_result(None)


def failure_text(name: str, application: ApplicationStatusOverview) -> str:
    """Return why an application failed: its own message, and those of its failed deployments."""
    details = [
        f"{deployment}: {each.message}"
        for deployment, each in application.deployments.items()
        if each.message and each.status.value == "DEPLOY_FAILED"
    ]
    return "\n".join([f"Deploying application {name} failed: {application.message}", *details])


def _complain(name: str, error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
