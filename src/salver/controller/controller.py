"""The controller's office: one method for each message it answers."""

import logging
from collections.abc import Iterable

import msgspec

from salver.controller.builds import Builds
from salver.controller.checkpoint import Checkpoint
from salver.controller.desired import Wish
from salver.controller.events import WishChanged
from salver.controller.launch import preload_for
from salver.controller.placement import shortage
from salver.controller.plane import ControlPlane
from salver.controller.proxies import Proxies
from salver.controller.publisher import UNKNOWN
from salver.engine.base import Engine, Exit
from salver.lib.clock import wall_time_s
from salver.schema.application import ApplicationSpec, Preload
from salver.schema.errors import BuildFailed, InvalidOption, ProtocolError, ResourcesUnavailable, SalverError
from salver.schema.ids import DeploymentID
from salver.schema.messages import (
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
    ProxyLeaving,
    ProxyReady,
    ReplicaFailed,
    ReplicaHealth,
    ReplicaJoined,
    ReplicaReady,
    ReplicaReport,
    Shutdown,
    StatusReport,
    Subscribe,
    Unsubscribe,
)
from salver.schema.options import ActorOptions
from salver.schema.process_payloads import BuilderNote, Note, ProxyNote, ReplicaNote
from salver.schema.status import ApplicationStatus
from salver.schema.topics import ROUTES_TOPIC, STATUS_TOPIC, Status, TopicValue
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.peer import Peer

logger = logging.getLogger(LOGGER_NAME)

IDLE_DRAIN_S = 5.0
"""Seconds a proxy gets to finish where no application says how long its requests may take."""


class Controller:
    """Answers drivers, builders, proxies and replicas; the wiring is in `processes/controller.py`.

    Args:
        plane: Fulfils the wishes.
        checkpoint: A wish is saved there before it is acknowledged.
        strict_cpus: CPUs are counted, not shared.
    """

    def __init__(self, engine: Engine, plane: ControlPlane, checkpoint: Checkpoint, *, strict_cpus: bool) -> None:
        self._engine = engine
        self._plane = plane
        self._desired = plane.desired
        self._publisher = plane.publisher
        self._checkpoint = checkpoint
        self._strict_cpus = strict_cpus
        self._turns: dict[str, int] = {}
        """How often something was wanted of each application."""
        self._ending = False
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

    async def recover(self) -> None:
        """Take over from an earlier controller, if there was one: its wishes, and the processes that live."""
        for wanted in self._checkpoint.load():
            self._desired.applications[wanted.spec.name] = wanted
        living = {each.name: each for each in await self._engine.processes() if each.note}
        notes = {name: msgspec.msgpack.decode(each.note, type=Note) for name, each in living.items()}
        for name, note in notes.items():
            if isinstance(note, ReplicaNote):
                self._plane.executor.adopt(living[name], note)
        self._proxies.adopt(living, {name: each for name, each in notes.items() if isinstance(each, ProxyNote)})
        builders = {name: each.application for name, each in notes.items() if isinstance(each, BuilderNote)}
        self._builds.adopt(builders)
        for application in builders.values():
            self._publisher.build_changed(application, ApplicationStatus.DEPLOYING, "", wall_time_s())
        # What was found comes before what is wanted, or it would be made once more.
        self._plane.loop.tick()
        self._wish_changed({wish.id for wish in self._desired.wishes()})

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Answer a question; part of Office."""
        match message:
            case GetStatus():
                return StatusReport(self._publisher.detailed_status())
            case FindApplication():
                return self._find(message.name)
            case Built() | BuildError():
                await self._built(peer, message)
            case ReplicaHealth():
                self._plane.executor.hear(message, peer)
            case _:
                await self._obey(message)
        return Done()

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Take note; part of Office."""
        match message:
            case Subscribe():
                self._plane.snapshots.subscribe(peer, message.topic, self._unpublished(message.topic))
            case Unsubscribe():
                self._plane.snapshots.unsubscribe(peer, message.topic)
            case ReplicaJoined() | ReplicaReady() | ReplicaHealth() | ReplicaFailed():
                self._plane.executor.hear(message, peer)
            case ReplicaReport():
                self._plane.reports.take(message)
            case ProxyReady():
                self._proxies.ready(peer)
            case ProxyLeaving():
                self._proxies.leaving(peer)
            case _:
                raise ProtocolError(f"a controller does not listen to {type(message).__name__}")

    def on_gone(self, peer: Peer) -> None:
        """Forget a peer; its process's exit, if it exited, is the engine's to tell; part of Office."""
        self._plane.snapshots.forget(peer)

    # Verbs

    async def _obey(self, message: Message) -> None:
        match message:
            case Deploy():
                await self._deploy(message.application, *message.others)
            case BuildAndDeploy():
                await self._build(message)
            case Delete():
                await self._delete([message.name])
            case Shutdown():
                await self._shut_down()
            case _:
                raise ProtocolError(f"a controller does not answer {type(message).__name__}")

    async def _deploy(self, *specs: ApplicationSpec) -> None:
        turns = {spec.name: self._take_turn(spec.name) for spec in specs}
        await self._check_resources(*specs)
        # All are looked at before any is wanted.
        for spec in specs:
            if self._turns[spec.name] != turns[spec.name]:
                raise SalverError(
                    f"Application '{spec.name}' was deployed anew or deleted while it was being deployed."
                )
            self._desired.check_prefix(spec.name, spec.route_prefix)
        replaced = []
        for spec in specs:
            self._builds.abandon(spec.name)
            replaced.append(self._want(spec))
        for old in replaced:
            await self._release(old)

    async def _build(self, order: BuildAndDeploy) -> None:
        if not order.name:
            raise InvalidOption("Application name must a non-empty string.")
        self._desired.check_prefix(order.name, order.route_prefix)
        builder = self._builds.builder_for(order)
        self._take_turn(order.name)
        self._publisher.build_changed(order.name, ApplicationStatus.DEPLOYING, "", wall_time_s())
        try:
            await self._builds.start(order.name, builder, self._variants(order.preload))
        except BuildFailed as error:
            if self._builds.stands(builder.name):
                self._builds.finished(builder.name)
                self.build_failed(order.name, str(error))
            raise

    async def _built(self, builder: Peer, message: Built | BuildError) -> None:
        process = builder.other_name
        try:
            if isinstance(message, BuildError):
                raise BuildFailed(message.reason)
            await self._check_resources(message.application)
            if self._builds.stands(process):
                await self._release(self._want(message.application))
        except SalverError as error:
            if self._builds.stands(process):
                self.build_failed(message.name, str(error))
        finally:
            self._builds.finished(process)

    async def _delete(self, names: Iterable[str]) -> None:
        released, touched = [], set()
        for name in names:
            self._take_turn(name, must_go=True)
            self._builds.abandon(name)
            wanted = self._desired.applications.get(name)
            released += [wanted.spec] if wanted is not None else []
            touched |= self._desired.delete(name)
            touched |= {each for each in self._plane.observed.deployments if each.app_name == name}
            self._checkpoint.remove(name)
            self._publisher.build_over(name)
        self._wish_changed(touched)
        while any(self._is_going(each) for each in touched):
            await self._plane.loop.until_changed()
        for spec in released:
            await self._release(spec)

    async def _shut_down(self) -> None:
        self._ending = True
        limits = [wish.spec.options.graceful_shutdown_timeout_s for wish in self._desired.wishes()]
        # Callers first: what they wait for must be there until they are done.
        await self._proxies.drain(max(limits, default=IDLE_DRAIN_S))
        await self._delete({*self._desired.applications, *self._turns})

    def _take_turn(self, name: str, *, must_go: bool = False) -> int:
        if self._ending and not must_go:
            raise SalverError("This instance is shutting down.")
        turn = self._turns[name] = self._turns.get(name, 0) + 1
        return turn

    def _want(self, spec: ApplicationSpec) -> ApplicationSpec | None:
        """Make an application the wish; return the one that it replaces."""
        old = self._desired.applications.get(spec.name)
        touched = self._desired.deploy(spec, wall_time_s())
        self._checkpoint.save(self._desired.applications[spec.name])
        self._wish_changed(touched)
        self._publisher.build_over(spec.name)
        for warning in spec.warnings:
            logger.warning("%s: %s", spec.name, warning)
        return None if old is None else old.spec

    def _wish_changed(self, touched: set[DeploymentID]) -> None:
        self._publisher.wish_changed(touched)
        for deployment in touched:
            wish = self._desired.wish_for(deployment)
            self._plane.loop.feed(WishChanged(deployment, None if wish is None else wish.version))

    def _is_going(self, deployment: DeploymentID) -> bool:
        """Say whether a deployment is still there although nobody wants it."""
        return deployment in self._plane.observed.deployments and self._desired.wish_for(deployment) is None

    async def _check_resources(self, *specs: ApplicationSpec) -> None:
        if self._engine.grows:
            return
        wishes = [
            Wish(spec.deployment_id(each.name), each, spec, each.options.initial_replicas)
            for spec in specs
            for each in spec.deployments
        ]
        short = shortage(wishes, await self._engine.nodes(), strict_cpus=self._strict_cpus)
        if short is not None:
            raise ResourcesUnavailable(short)

    def _variants(self, preload: Preload) -> list[Preload]:
        """Return the preloads of all replicas whose code is that of a preload; their environments may differ."""
        variants = [preload_for(preload, ActorOptions())]
        for wish in self._desired.wishes():
            variant = _preload(wish)
            if wish.application.preload == preload and variant not in variants:
                variants.append(variant)
        return variants

    async def _release(self, spec: ApplicationSpec | None) -> None:
        """Let the zygotes of an application go that no other application shares."""
        if spec is None:
            return
        kept = [_preload(wish) for wish in self._desired.wishes()]
        for deployment in spec.deployments:
            preload = preload_for(spec.preload, deployment.options.ray_actor_options)
            if preload not in kept:
                await self._engine.release(preload)

    def _find(self, name: str) -> ApplicationFound:
        wanted = self._desired.applications.get(name)
        if wanted is None:
            return ApplicationFound(None)
        names = tuple(each.name for each in wanted.spec.deployments)
        return ApplicationFound(wanted.spec.deployment_id(wanted.spec.ingress), names)

    def _unpublished(self, topic: str) -> TopicValue | None:
        """Return the value of a topic that is published only where somebody looks, or not at all."""
        if topic == ROUTES_TOPIC:
            return self._desired.routes()
        if topic == STATUS_TOPIC:
            return Status(self._publisher.status())
        return None if self._publisher.holds_back(topic) else UNKNOWN

    def _process_exited(self, exit_: Exit) -> None:
        if not self._plane.executor.process_exited(exit_):
            self._builds.process_exited(exit_)
            self._proxies.process_exited(exit_)


def _preload(wish: Wish) -> Preload:
    return preload_for(wish.application.preload, wish.spec.options.ray_actor_options)
