"""A process's connection to an instance: what may be asked of it. Asynchronous; `verbs` is the same for threads."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from salver.engine.instances import Found, socket_path
from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.handle.session import Session
from salver.lib.tasks import Tasks, complain
from salver.schema.application import ApplicationSpec, Preload
from salver.schema.errors import Disconnected, ProtocolError, SalverError
from salver.schema.messages import BuildAndDeploy, Delete, Deploy, Done, GetStatus, Message, StatusReport
from salver.schema.status import ApplicationStatus, ApplicationStatusOverview, ProxyStatus, ServeStatus
from salver.schema.topics import STATUS_TOPIC, Status, TopicValue
from salver.transport.peer import Peer
from salver.transport.sockets import dial, unix_address

if TYPE_CHECKING:
    from salver.schema.http import HTTPOptions


class DeployFailed(SalverError, RuntimeError):
    """An application could not be deployed; the message has the reason, with the user's own traceback."""


class Client:
    """A connection to an instance that another process started, and that goes on without this one.

    Attributes:
        http: The options its proxy was started with; None where that is not known.
        http_url: Where its proxy listens, or None without one.
        session: For handles.
        tasks: Owns what works for it in the background.
        ended: Done when the instance is gone; its result is the reason.
        is_guest: The instance goes on without this process.
        runs_here: Its replicas are threads of this process.
    """

    is_guest = True
    runs_here = False

    def __init__(self) -> None:
        self.http: HTTPOptions | None = None
        self.http_url: str | None = None
        self.session: Session
        self.tasks = Tasks(on_error=complain)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._agent = Peer(self, role="driver", name=f"driver-{os.getpid()}", tasks=self.tasks)
        self._link: ControllerLink
        self._reason = ""

    @classmethod
    async def connect(cls, found: Found) -> "Client":
        """Connect to an instance of this machine.

        Raises:
            SalverError: It does not answer, or is somebody else's.
        """
        client = cls()
        client.http_url = found.http_url
        try:
            # Nothing is asked of the agent: its end tells that of the instance.
            await dial(unix_address(socket_path(str(found.path), "agent")), client._agent)
            await client._join(unix_address(socket_path(str(found.path), "controller")))
        except Disconnected as error:
            client._agent.close()
            raise SalverError(f"The instance {found.path} cannot be reached: {error}.") from error
        return client

    async def deploy(self, spec: ApplicationSpec, *others: ApplicationSpec) -> None:
        """Deploy built applications, all or none; returns when the wish is saved."""
        await self._link.ask(Deploy(spec, others), Done)

    async def build_and_deploy(
        self, import_path: str, arguments: Mapping[str, str], *, name: str, route_prefix: str | None, preload: Preload
    ) -> None:
        """Build an application from an import path and deploy it; returns when its code is in memory."""
        order = BuildAndDeploy(
            import_path=import_path, arguments=dict(arguments), name=name, route_prefix=route_prefix, preload=preload
        )
        await self._link.ask(order, Done)

    async def until_running(self, *names: str, on_status: Callable[[ServeStatus], None] | None = None) -> None:
        """Wait until applications run and the proxy serves them.

        Args:
            on_status: Hears each status on the way.

        Raises:
            DeployFailed: One failed.
            Disconnected: The instance is gone.
        """
        seen: set[str] = set()

        def look(status: ServeStatus) -> bool:
            if on_status is not None:
                on_status(status)
            if lost := sorted(seen - status.applications.keys()):
                raise DeployFailed(
                    f"Deploying {', '.join(lost)} failed: it was deleted meanwhile, or the controller died while it "
                    "was being built. Deploy it again."
                )
            seen.update(name for name in names if name in status.applications)
            # All are looked at: one that failed must not hide behind one that starts.
            return False not in [_runs(each, status) for each in names]

        await self._until(look)

    async def until_proxies_serve(self, timeout_s: float) -> None:
        """Wait until the proxy accepts connections; returns at once where there is none.

        Raises:
            TimeoutError: It did not in time.
            Disconnected: The instance is gone.
        """
        if self.http_url is not None:
            serving = self._until(lambda status: bool(status.proxies) and _proxies_serve(status))
            await asyncio.wait_for(serving, timeout_s)

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
        """Leave the instance, which goes on; what this process has asked and not been answered is lost."""
        self._leave()
        if not self.ended.done():
            self.ended.set_result("this process has left it")
        await self.tasks.close()

    async def abandon(self) -> None:
        """Do nothing: to leave takes no time."""

    async def _join(self, controller_address: str) -> None:
        name = f"driver-{os.getpid()}"
        self._link = ControllerLink(role="driver", name=name, tasks=self.tasks)
        await self._link.connect(controller_address)
        routers = Routers(self._link, role="driver", name=name, tasks=self.tasks)
        self.session = Session(asyncio.get_running_loop(), self._link, routers, controller_address)

    def _leave(self) -> None:
        if hasattr(self, "session"):
            self.session.closed = True
            self.session.routers.close()
            self._link.close()
        self._agent.close()

    async def _until(self, look: Callable[[ServeStatus], bool]) -> None:
        """Wait until a status looks right; what `look` raises passes through."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_value(value: TopicValue) -> None:
            if not isinstance(value, Status) or settled.done():
                return
            try:
                if look(value.status):
                    settled.set_result(None)
            except SalverError as error:
                settled.set_exception(error)

        self._link.subscribe(STATUS_TOPIC, on_value)
        try:
            await either(settled, self.ended)
        finally:
            self._link.unsubscribe(STATUS_TOPIC, on_value)
        if not settled.done():
            raise Disconnected(self._reason or "the instance ended")
        settled.result()

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """An agent asks nothing; part of Office."""
        raise ProtocolError(f"a driver does not answer {type(message).__name__}")

    def on_tell(self, peer: Peer, message: Message) -> None:
        """An agent tells its own driver only; part of Office."""

    def on_gone(self, peer: Peer) -> None:
        """The agent is gone, and with it the instance; part of Office."""
        if not self.ended.done():
            self._reason = "The instance has ended."
            self.ended.set_result(self._reason)
            self._leave()


async def either(first: asyncio.Future[Any], second: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Wait until one of two is done."""
    await asyncio.wait({first, second}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _runs(name: str, status: ServeStatus) -> bool:
    application = status.applications.get(name)
    if application is not None and application.status is ApplicationStatus.DEPLOY_FAILED:
        raise DeployFailed(failure_text(name, application))
    return application is not None and application.status is ApplicationStatus.RUNNING and _proxies_serve(status)


def _proxies_serve(status: ServeStatus) -> bool:
    return all(each is ProxyStatus.HEALTHY for each in status.proxies.values())


def url_of(http_url: str, route_prefix: str | None) -> str:
    """Return where an application answers."""
    prefix = (route_prefix or "/").rstrip("/")
    return f"{http_url}{prefix or '/'}"


def failure_text(name: str, application: ApplicationStatusOverview) -> str:
    """Return why an application failed: its own message, and those of its failed deployments."""
    details = [
        f"{deployment}: {each.message}"
        for deployment, each in application.deployments.items()
        if each.message and each.status.value == "DEPLOY_FAILED"
    ]
    return "\n".join([f"Deploying application {name} failed: {application.message}", *details])
