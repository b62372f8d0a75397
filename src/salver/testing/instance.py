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
from salver.schema.application import ApplicationSpec, DeploymentSpec
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
        deployments = [each for spec in specs for each in spec.deployments]
        ignored = [each.name for each in deployments if each.options.ray_actor_options != ActorOptions()]
        if ignored:
            logger.warning(
                "Local testing mode runs everything in this process: ray_actor_options (runtime_env, num_gpus and the "
                "like) of %s are ignored.",
                ", ".join(ignored),
            )
        await super().deploy(*map(_for_threads, specs))

    async def until_running(self, *names: str, on_status: Callable[[ServeStatus], None] | None = None) -> None:
        """Wait until applications run.

        Raises:
            Exception: What the first constructor that failed has raised.
        """
        try:
            await super().until_running(*names, on_status=on_status)
        except DeployFailed:
            for error in [self._errors.pop(name, None) for name in names]:
                if isinstance(error, Exception):
                    raise error from None
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
        self.session.deadlines.close()
        self.site.close()
        self._leave()
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


def _for_threads(application: ApplicationSpec) -> ApplicationSpec:
    deployments = tuple(_without_needs(each) for each in application.deployments)
    return msgspec.structs.replace(application, deployments=deployments)


def _without_needs(deployment: DeploymentSpec) -> DeploymentSpec:
    """Return a deployment that any machine can run, and that a test need not wait for when it cannot start."""
    options = msgspec.structs.replace(
        deployment.options,
        ray_actor_options=ActorOptions(),
        max_replicas_per_node=None,
        max_constructor_retry_count=1,
    )
    return msgspec.structs.replace(deployment, options=options)
