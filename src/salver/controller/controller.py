"""The controller's office: one method for each message it answers."""

import logging

from salver.controller.builds import Builds
from salver.controller.checkpoint import Checkpoint
from salver.controller.desired import Desired, Wish
from salver.controller.events import WishChanged
from salver.controller.executor import Executor
from salver.controller.launch import preload_for
from salver.controller.loop import ControlLoop
from salver.controller.observed import Observed
from salver.controller.placement import shortage
from salver.controller.proxies import Proxies
from salver.controller.publisher import UNKNOWN, Publisher
from salver.controller.snapshots import Snapshots
from salver.engine.base import Engine, Exit
from salver.lib.clock import wall_time_s
from salver.schema.application import ApplicationSpec
from salver.schema.errors import BuildFailed, InvalidOption, ProtocolError, ResourcesUnavailable, SalverError
from salver.schema.ids import DeploymentID
from salver.schema.messages import (
    ROUTES_TOPIC,
    STATUS_TOPIC,
    ApplicationFound,
    BuildAndDeploy,
    BuildError,
    Built,
    Delete,
    Deploy,
    Done,
    FindApplication,
    GetStatus,
    Message,
    ProxyReady,
    ReplicaFailed,
    ReplicaReady,
    Shutdown,
    Status,
    StatusReport,
    Subscribe,
    TopicValue,
    Unsubscribe,
)
from salver.schema.status import ApplicationStatus
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.peer import Peer

logger = logging.getLogger(LOGGER_NAME)


class Controller:
    """Answers drivers, builders, proxies and replicas; the wiring is in `processes/controller.py`."""

    def __init__(
        self,
        *,
        engine: Engine,
        desired: Desired,
        observed: Observed,
        snapshots: Snapshots,
        publisher: Publisher,
        loop: ControlLoop,
        executor: Executor,
        checkpoint: Checkpoint,
        strict_cpus: bool,
    ) -> None:
        self._engine = engine
        self._desired = desired
        self._observed = observed
        self._snapshots = snapshots
        self._publisher = publisher
        self._loop = loop
        self._executor = executor
        self._checkpoint = checkpoint
        self._strict_cpus = strict_cpus
        self._builds: Builds
        self._proxies: Proxies
        engine.on_exit(self._process_exited)

    def attend(self, builds: Builds, proxies: Proxies) -> None:
        """Use these, which report back to this controller."""
        self._builds = builds
        self._proxies = proxies

    def build_failed(self, name: str, reason: str) -> None:
        """An application could not be built; an earlier version of it runs on."""
        self._publisher.build_changed(name, ApplicationStatus.DEPLOY_FAILED, reason, wall_time_s())

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Answer a question; part of Office."""
        match message:
            case Deploy():
                await self._deploy(message.application)
            case BuildAndDeploy():
                await self._build(message)
            case Built() | BuildError():
                await self._built(peer, message)
            case Delete():
                await self._delete(message.name)
            case Shutdown():
                await self._shut_down()
            case GetStatus():
                return StatusReport(self._publisher.status())
            case FindApplication():
                return self._find(message.name)
            case _:
                raise ProtocolError(f"a controller does not answer {type(message).__name__}")
        return Done()

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Take note; part of Office."""
        match message:
            case Subscribe():
                self._snapshots.subscribe(peer, message.topic, self._default(message.topic))
            case Unsubscribe():
                self._snapshots.unsubscribe(peer, message.topic)
            case ReplicaReady():
                self._executor.replica_ready(message, peer)
            case ReplicaFailed():
                self._executor.replica_failed(message)
            case ProxyReady():
                self._proxies.ready(peer)
            case _:
                raise ProtocolError(f"a controller does not listen to {type(message).__name__}")

    def on_gone(self, peer: Peer) -> None:
        """Forget a peer; its process's exit, if it exited, is the engine's to tell; part of Office."""
        self._snapshots.forget(peer)

    async def _deploy(self, spec: ApplicationSpec) -> None:
        await self._check_resources(spec)
        old = self._desired.applications.get(spec.name)
        touched = self._desired.deploy(spec, wall_time_s())
        self._checkpoint.save(self._desired.applications[spec.name])
        self._publisher.build_changed(spec.name, None, "", 0.0)
        self._publisher.wish_changed(touched)
        for deployment in touched:
            wish = self._desired.wish_for(deployment)
            self._loop.feed(WishChanged(deployment, None if wish is None else wish.version))
        for warning in spec.warnings:
            logger.warning("%s: %s", spec.name, warning)
        if old is not None:
            await self._release(old.spec)

    async def _build(self, order: BuildAndDeploy) -> None:
        if not order.name:
            raise InvalidOption("Application name must a non-empty string.")
        self._desired.check_prefix(order.name, order.route_prefix)
        self._publisher.build_changed(order.name, ApplicationStatus.DEPLOYING, "", wall_time_s())
        try:
            await self._builds.start(order)
        except BuildFailed as error:
            self.build_failed(order.name, str(error))
            raise

    async def _built(self, builder: Peer, message: Built | BuildError) -> None:
        if self._builds.finished(builder.other_name) is None:
            return  # A later build of the same application has overtaken it.
        if isinstance(message, BuildError):
            self.build_failed(message.name, message.reason)
            return
        try:
            await self._deploy(message.application)
        except SalverError as error:
            self.build_failed(message.name, str(error))

    async def _delete(self, name: str) -> None:
        self._builds.abandon(name)
        wanted = self._desired.applications.get(name)
        touched = self._desired.delete(name)
        self._checkpoint.remove(name)
        self._publisher.build_changed(name, None, "", 0.0)
        self._publisher.wish_changed(touched)
        for deployment in touched:
            self._loop.feed(WishChanged(deployment, None))
        while any(deployment in self._observed.deployments for deployment in touched):
            await self._loop.until_changed()
        if wanted is not None:
            await self._release(wanted.spec)

    async def _shut_down(self) -> None:
        # Not longer than any replica may take: a request that never ends must not keep the instance alive.
        patience_s = max((each.spec.options.graceful_shutdown_timeout_s for each in self._desired.wishes()), default=0)
        await self._proxies.drain(patience_s)
        for name in list(self._desired.applications):
            await self._delete(name)

    async def _release(self, spec: ApplicationSpec) -> None:
        """Let the zygotes of an application go that no other application shares."""
        kept = {repr(_preload(wish)) for wish in self._desired.wishes()}
        for deployment in spec.deployments:
            preload = preload_for(spec.preload, deployment.options.ray_actor_options)
            if repr(preload) not in kept:
                await self._engine.release(preload)

    async def _check_resources(self, spec: ApplicationSpec) -> None:
        if self._engine.grows:
            return
        wishes = [
            Wish(spec.deployment_id(each.name), each, spec, each.options.initial_replicas) for each in spec.deployments
        ]
        short = shortage(wishes, await self._engine.nodes(), strict_cpus=self._strict_cpus)
        if short is not None:
            raise ResourcesUnavailable(short)

    def _find(self, name: str) -> ApplicationFound:
        wanted = self._desired.applications.get(name)
        if wanted is None:
            return ApplicationFound(None)
        names = tuple(each.name for each in wanted.spec.deployments)
        return ApplicationFound(DeploymentID(wanted.spec.ingress, name), names)

    def _default(self, topic: str) -> TopicValue:
        if topic == ROUTES_TOPIC:
            return self._desired.routes()
        if topic == STATUS_TOPIC:
            return Status(self._publisher.status())
        return UNKNOWN

    def _process_exited(self, exit_: Exit) -> None:
        if not self._executor.process_exited(exit_):
            self._builds.process_exited(exit_)
            self._proxies.process_exited(exit_)


def _preload(wish: Wish) -> object:
    return preload_for(wish.application.preload, wish.spec.options.ray_actor_options)

