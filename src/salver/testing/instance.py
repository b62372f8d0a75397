"""An instance inside one process: the controller and the replicas of any other, as threads and without sockets.

The control plane, the replicas, the routers and the frames between them are those that run in production; only the
engine, the transport and the checkpoint differ. So limits, queues, batches, errors, deadlines and cancellation are the
same, and so is what is pickled on the way.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from salver.api.client import Client, DeployFailed
from salver.api.instance import Declared, OnReport
from salver.controller.builds import Builds
from salver.controller.checkpoint import Checkpoint
from salver.controller.controller import Controller
from salver.controller.plane import wired
from salver.controller.proxies import Proxies
from salver.engine.base import ProcessSpec
from salver.engine.store import SqliteStore
from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.handle.session import Session
from salver.lib.clock import MonotonicClock
from salver.proxy.server import ProxyServer
from salver.schema.application import ApplicationSpec
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import Done, Shutdown
from salver.schema.options import ActorOptions
from salver.schema.process_payloads import ReplicaPayload
from salver.schema.status import ServeStatus
from salver.telemetry.logs import LOGGER_NAME
from salver.testing.threads import ThreadEngine
from salver.transport.memory import MemoryNetwork
from salver.transport.peer import Peer

logger = logging.getLogger(LOGGER_NAME)

CONTROLLER = "memory:controller"


class LocalInstance(Client):
    """A running instance inside this process.

    Attributes:
        site: The proxy, which listens nowhere: `http_app` hands it requests.
    """

    is_guest = False
    runs_here = True
    http: HTTPOptions

    def __init__(self, http: HTTPOptions) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.http = http
        self._network = network = MemoryNetwork()
        self._errors: dict[str, BaseException] = {}
        """What user code of an application raised first while it started."""
        self._stopping = False
        self._engine = ThreadEngine(network, self._failed)
        self._plane = wired(
            self._engine,
            controller_address=CONTROLLER,
            expose_tracebacks=True,
            clock=MonotonicClock(),
            tasks=self.tasks,
        )
        self._checkpoint = Checkpoint(SqliteStore(":memory:"))
        self._link = ControllerLink(role="driver", name="driver", tasks=self.tasks, dial=network.dial)
        routers = Routers(self._link, role="driver", name="driver", tasks=self.tasks, dial=network.dial)
        self.session = Session(loop, self._link, routers, CONTROLLER, dial=network.dial)
        self.site = ProxyServer(self._link, routers, http, loop)

    async def start(self) -> None:
        """Begin to serve."""
        controller = Controller(self._engine, self._plane, self._checkpoint, strict_cpus=False)
        builds = Builds(
            self._engine, controller_address=CONTROLLER, on_failure=controller.build_failed, tasks=self.tasks
        )
        proxies = Proxies(
            self._engine,
            [],
            on_status=self._plane.publisher.proxy_changed,
            clock=MonotonicClock(),
            tasks=self.tasks,
        )
        controller.attend(builds, proxies)
        await self._network.listen(
            CONTROLLER, lambda: Peer(controller, role="controller", name="controller", tasks=self.tasks)
        )
        self.tasks.start(self._plane.loop.run(), name="control loop")
        await self._link.connect(CONTROLLER)
        await self.site.know_routes()

    async def deploy(self, spec: ApplicationSpec, *others: ApplicationSpec) -> None:
        """Deploy built applications, all or none; returns when the wish is saved."""
        specs = (spec, *others)
        for each in specs:
            self._errors.pop(each.name, None)
        ignored = [
            deployment.name
            for each in specs
            for deployment in each.deployments
            if deployment.options.ray_actor_options != ActorOptions()
        ]
        if ignored:
            logger.warning(
                "Local testing mode runs everything in this process: ray_actor_options (runtime_env, num_gpus and the "
                "like) of %s are ignored.",
                ", ".join(ignored),
            )
        await super().deploy(*(_without_needs(each) for each in specs))

    async def until_running(self, *names: str, on_status: Callable[[ServeStatus], None] | None = None) -> None:
        """Wait until applications run.

        Raises:
            Exception: What the first constructor that failed has raised.
        """
        try:
            await super().until_running(*names, on_status=on_status)
        except DeployFailed:
            errors = [error for name in names if (error := self._errors.pop(name, None)) is not None]
            if errors and isinstance(errors[0], Exception):
                raise errors[0] from None
            raise

    async def stop(self, *, drain: bool = True) -> None:
        """End the instance."""
        if self._stopping:
            await asyncio.wait([self.ended])
            return
        self._stopping = True
        with suppress(SalverError):
            if drain and not self.ended.done():
                await self._link.ask(Shutdown(), Done)
        await self._engine.close()
        self.session.closed = True
        self.session.deadlines.close()
        self.site.close()
        self.session.routers.close()
        self._link.close()
        await self.tasks.close()
        self._checkpoint.close()
        if not self.ended.done():
            self.ended.set_result("it was stopped")

    async def abandon(self) -> None:
        """End the instance now."""
        await self._engine.close()

    def _failed(self, process: ProcessSpec, error: BaseException) -> None:
        replica = msgspec.msgpack.decode(process.payload, type=ReplicaPayload).replica
        self._errors.setdefault(replica.deployment_id.app_name, error)


async def launch(http: HTTPOptions, _on_report: OnReport, _machine: Declared) -> LocalInstance:
    """Start an instance inside this process; part of `api.driver.Launch`."""
    instance = LocalInstance(http)
    await instance.start()
    return instance


def _without_needs(application: ApplicationSpec) -> ApplicationSpec:
    """Return an application that any machine can run, and that a test need not wait for when it cannot start."""
    deployments = [
        msgspec.structs.replace(
            each,
            options=msgspec.structs.replace(
                each.options,
                ray_actor_options=ActorOptions(),
                max_replicas_per_node=None,
                max_constructor_retry_count=1,
            ),
        )
        for each in application.deployments
    ]
    return msgspec.structs.replace(application, deployments=tuple(deployments))
