"""What a driver wants of a controller, and waits for; asynchronous, the same for every kind of instance."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from salver.handle.link import ControllerLink
from salver.handle.session import Session
from salver.lib.tasks import Tasks
from salver.schema.application import ApplicationSpec
from salver.schema.errors import Disconnected, SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import STATUS_TOPIC, Delete, Deploy, Done, GetStatus, Status, StatusReport, TopicValue
from salver.schema.status import ApplicationStatus, ApplicationStatusOverview, ProxyStatus, ServeStatus


class DeployFailed(SalverError, RuntimeError):
    """An application could not be deployed; the message has the reason, with the user's own traceback."""


class Controlled(ABC):
    """An instance, as a driver talks to it.

    Attributes:
        runs_here: Its replicas are threads of this process.
        http: The options its proxy was started with.
        http_url: Where its proxy listens, or None without one.
        session: For handles.
        tasks: Owns what is done for it in the background.
        ended: Done when the instance is gone; its result is the reason.
    """

    runs_here: bool
    http: HTTPOptions
    http_url: str | None = None
    session: Session
    tasks: Tasks
    ended: "asyncio.Future[str]"
    _link: ControllerLink
    _reason: str = ""

    @abstractmethod
    async def stop(self, *, drain: bool = True) -> None:
        """End the instance; with `drain`, requests that run are finished first, for as long as their options say."""

    @abstractmethod
    async def abandon(self) -> None:
        """End the instance now, while `stop` waits for requests that run."""

    async def deploy(self, spec: ApplicationSpec) -> None:
        """Deploy a built application; returns when the wish is saved."""
        await self._link.ask(Deploy(spec), Done)

    async def until_running(self, name: str, on_status: Callable[[ServeStatus], None] | None = None) -> None:
        """Wait until an application runs and the proxy serves it.

        Args:
            on_status: Hears each status on the way.

        Raises:
            DeployFailed: It failed.
            Disconnected: The instance is gone.
        """

        def look(status: ServeStatus) -> bool:
            if on_status is not None:
                on_status(status)
            return _runs(name, status)

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

    def watch_status(self, on_status: Callable[[ServeStatus], None]) -> None:
        """Call back with the status now and at each change."""
        self._link.subscribe(STATUS_TOPIC, lambda value: on_status(value.status) if isinstance(value, Status) else None)

    async def status(self) -> ServeStatus:
        """Return the status of the instance."""
        return (await self._link.ask(GetStatus(), StatusReport)).status

    async def delete(self, name: str) -> None:
        """Drain and remove an application; returns when it is gone."""
        await self._link.ask(Delete(name), Done)


async def either(first: asyncio.Future[Any], second: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Wait for one of two, or until the time is over."""
    await asyncio.wait({first, second}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _runs(name: str, status: ServeStatus) -> bool:
    application = status.applications.get(name)
    if application is not None and application.status is ApplicationStatus.DEPLOY_FAILED:
        raise DeployFailed(failure_text(name, application))
    return application is not None and application.status is ApplicationStatus.RUNNING and _proxies_serve(status)


def _proxies_serve(status: ServeStatus) -> bool:
    return all(each is ProxyStatus.HEALTHY for each in status.proxies.values())


def failure_text(name: str, application: ApplicationStatusOverview) -> str:
    """Return why an application failed: its own message, and those of its failed deployments."""
    details = [
        f"{deployment}: {each.message}"
        for deployment, each in application.deployments.items()
        if each.message and each.status.value == "DEPLOY_FAILED"
    ]
    return "\n".join([f"Deploying application {name} failed: {application.message}", *details])
