"""One deployment on a stage: what is wanted and what happens come in, what is done comes out, in short words."""

from itertools import count
from typing import Any

import msgspec

from salver.controller.commands import (
    Command,
    DrainReplica,
    KillReplica,
    RetireReplica,
    SendRank,
    StartReplica,
    StopReplica,
    SuspectReplica,
)
from salver.controller.desired import Wish
from salver.controller.events import (
    DrainBegan,
    Event,
    KillSent,
    NoRoomForReplica,
    RankSent,
    ReplicaAwaitsRank,
    ReplicaDrained,
    ReplicaExited,
    ReplicaHeard,
    ReplicaLaunched,
    ReplicaPlaced,
    ReplicaReadied,
    ReplicaStartFailed,
    ReplicaSuspected,
    ReplicaUnhealthy,
    ResourcesFreed,
    StopBegan,
    WishChanged,
)
from salver.controller.health import silence_allowed_s
from salver.controller.lifecycle import Stage
from salver.controller.observed import Observed, Replica, View
from salver.controller.placement import resources_of
from salver.controller.reconcile import Plan, reconcile
from salver.schema.application import ApplicationSpec, DeploymentSpec, ImportedCode, Preload
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.options import Options, validated

ID = DeploymentID("Model", "shop")


def deployment(name: str = "Model", **options: Any) -> DeploymentSpec:
    """Return a deployment with these options."""
    given: Options = validated(options)
    return DeploymentSpec(name=name, code=ImportedCode("shop", name), arguments=b"", options=given)


def application(
    *deployments: DeploymentSpec, name: str = "shop", version: str = "v1", route_prefix: str | None = "/"
) -> ApplicationSpec:
    """Return an application of these deployments, the first one its ingress."""
    deployments = deployments or (deployment(),)
    return ApplicationSpec(
        name=name,
        route_prefix=route_prefix,
        ingress=deployments[0].name,
        version=version,
        deployments=deployments,
        preload=Preload("/code", modules=("shop",)),
    )


def wish(replicas: int = 1, version: str = "v1", **options: Any) -> Wish:
    """Return a wish for a deployment."""
    spec = deployment(num_replicas=replicas or 1, **options)
    if not replicas:
        spec = msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, num_replicas=0))
    return Wish(ID, spec, application(spec, version=version), replicas)


class Scene:
    """A deployment, its replicas r1, r2, …, and the time.

    Attributes:
        now: The time; tests move it.
        wish: How the deployment is wanted.
        history: All that happened, and when.
    """

    def __init__(self, wanted: Wish | None = None) -> None:
        self.now = 100.0
        self.observed = Observed()
        self.wish: Wish | None = None
        self.history: list[tuple[Event, float]] = []
        self._numbers = count(1)
        if wanted is not None:
            self.want(wanted)

    @property
    def view(self) -> View:
        return self.observed.view(ID)

    def replica(self, name: str) -> Replica:
        return self.view.replicas[_id(name)]

    def stages(self) -> dict[str, str]:
        """Return the stage of each replica."""
        return {each.id.unique_id: each.stage.value for each in self.view.replicas.values()}

    def serving(self) -> list[str]:
        """Return who takes requests."""
        return [each.id.unique_id for each in self.view.in_stage(Stage.RUNNING)]

    def want(self, wanted: Wish | None) -> None:
        self.wish = wanted
        self.happen(WishChanged(ID, None if wanted is None else wanted.version))

    def happen(self, event: Event) -> None:
        self.history.append((event, self.now))
        self.observed.apply(event, self.now)

    def plan(self) -> Plan:
        return reconcile(self.wish, self.view, self.now)

    def look(self, after_s: float = 0.0) -> list[str]:
        """Do what is decided, as the control loop does, until nothing more is; return it in words."""
        self.now += after_s
        done: list[str] = []
        while commands := self.plan().commands:
            done += [self._perform(each) for each in commands]
        return done

    def placed(self, *names: str, node_id: str = "node") -> None:
        for name in names:
            self.happen(ReplicaPlaced(_id(name), node_id, 7))

    def joined(self, *names: str) -> None:
        """Let processes connect that ask for their ranks."""
        for name in names:
            self.happen(ReplicaAwaitsRank(_id(name)))

    def ready(self, *names: str) -> None:
        for name in names:
            self.placed(name)
            self.happen(ReplicaReadied(_id(name), f"unix:/{name}"))

    def fail(self, *names: str, reason: str = "ValueError: boom") -> None:
        """Let constructors raise; the processes are gone too."""
        for name in names:
            self.happen(ReplicaStartFailed(_id(name), reason))
            self.exit(name)

    def refuse(self, *names: str, reason: str = "GPU is short") -> None:
        for name in names:
            self.happen(NoRoomForReplica(_id(name), reason))

    def hear(self, *names: str, failures: int = 0, reason: str = "", loop_held_s: float = 0.0) -> None:
        """Let replicas tell how they fare."""
        for name in names:
            self.happen(ReplicaHeard(_id(name), failures, reason, loop_held_s))

    def drained(self, *names: str) -> None:
        for name in names:
            self.happen(ReplicaDrained(_id(name)))

    def exit(self, *names: str, how: str = "exited with code 1") -> None:
        for name in names:
            self.happen(ReplicaExited(_id(name), how))
            self.happen(ResourcesFreed())

    def leave(self, *names: str) -> None:
        """Let draining replicas finish, stop and go."""
        self.drained(*names)
        self.look()
        self.exit(*names, how="exited with code 0")

    def _perform(self, command: Command) -> str:
        assert isinstance(command, StartReplica) or command.replica in self.view.replicas
        match command:
            case StartReplica():
                name = f"r{next(self._numbers)}"
                options = command.wish.spec.options
                resources = resources_of(options.ray_actor_options)
                timeout_s = options.graceful_shutdown_timeout_s
                silence_s = silence_allowed_s(options.health_check_period_s, options.health_check_timeout_s)
                self.happen(ReplicaLaunched(_id(name), command.wish.version, timeout_s, silence_s, resources))
                return f"start {name}"
            case DrainReplica():
                self.happen(DrainBegan(command.replica))
                return f"drain {command.replica.unique_id}"
            case StopReplica():
                self.happen(StopBegan(command.replica))
                return f"stop {command.replica.unique_id}"
            case KillReplica():
                self.happen(KillSent(command.replica))
                return f"kill {command.replica.unique_id}"
            case RetireReplica():
                self.happen(ReplicaUnhealthy(command.replica, command.reason))
                self.happen(DrainBegan(command.replica))
                return f"retire {command.replica.unique_id}"
            case SuspectReplica():
                self.happen(ReplicaSuspected(command.replica))
                return f"suspect {command.replica.unique_id}"
            case SendRank():
                self.happen(RankSent(command.replica, command.rank, command.world_size))
                return f"rank {command.replica.unique_id} {command.rank.rank}/{command.world_size}"


def running(replicas: int, version: str = "v1", **options: Any) -> Scene:
    """Return a scene whose deployment runs as it is wanted."""
    scene = Scene(wish(replicas, version, **options))
    scene.look()
    scene.ready(*[f"r{number + 1}" for number in range(replicas)])
    assert scene.look() == []
    return scene


def _id(name: str) -> ReplicaID:
    return ReplicaID(name, ID)
