"""What is: replicas and how their deployments fare. `apply` is the only thing that changes it. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from salver.controller.events import (
    DrainBegan,
    Event,
    KillSent,
    NoRoomForReplica,
    RankSent,
    ReconfigureFailed,
    ReplicaAwaitsRank,
    ReplicaDrained,
    ReplicaEvent,
    ReplicaExited,
    ReplicaHeard,
    ReplicaLaunched,
    ReplicaPlaced,
    ReplicaReadied,
    ReplicaReported,
    ReplicaStartFailed,
    ReplicaSuspected,
    ReplicaUnhealthy,
    ResourcesFreed,
    StopBegan,
    WishChanged,
)
from salver.controller.lifecycle import SHOWN_AS, Stage, Step, after, killed_at
from salver.controller.ranks import lowest_free, on_node
from salver.lib.restarts import QUICK_DEATH_S, restart_delay_s
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank
from salver.schema.status import ReplicaState

ADOPTION_TIMEOUT_S = 5.0
"""So long nothing is decided about a deployment whose replicas may still say how they are to a new controller."""

_REPORTED = ("multiplexed_model_ids", "routing_stats", "autoscaling_stats", "metadata")
Fact = ReplicaDrained | ReplicaAwaitsRank | RankSent | ReplicaSuspected | ReconfigureFailed | ReplicaHeard
"""What only its replica has to remember."""

_FIRST = ReplicaRank()
_STEPS = {DrainBegan: Step.DRAIN, StopBegan: Step.STOP, KillSent: Step.KILL}


@dataclass(frozen=True)
class Replica:
    """One replica.

    Attributes:
        since: When it came to its stage.
        silence_allowed_s: Nothing may be heard of it for so long before something may be wrong.
        resources: What it holds, by name.
        kill_at: When it is killed unless it is gone by then; None while it need not go.
        address: Where it answers; "" until it is ready.
        drained: It has nothing left to do.
        adopted: It is of an earlier controller's time, and has not said yet how it is.
        multiplexed_model_ids: The models that it has loaded or loads.
        routing_stats: What the user's code recorded of it last, for routers.
        autoscaling_stats: Likewise, for autoscaling.
        metadata: What the user's code recorded of it once.
        rank: Which replica of its deployment it is; on its node, once it has one.
        listens: It can be told its rank.
        told_rank: The rank that it was told last, and how many replicas were wanted then.
        heard_at: When it last told how it fares; None before its first time.
        suspected_at: When it had been silent for too long; None for one that is not.
        failed_checks: Health checks that failed in a row.
        last_check: What the last one raised, or where its event loop is held.
        loop_held_s: How long user code had held its event loop.
        illness: Why it must be replaced whatever its checks say; "" for most.
    """

    id: ReplicaID
    version: str
    stage: Stage
    since: float
    drain_timeout_s: float
    silence_allowed_s: float
    resources: Mapping[str, float]
    kill_at: float | None = None
    node_id: str = ""
    pid: int = 0
    address: str = ""
    drained: bool = False
    adopted: bool = False
    multiplexed_model_ids: tuple[str, ...] = ()
    routing_stats: Mapping[str, float] = field(default_factory=dict)
    autoscaling_stats: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rank: ReplicaRank = _FIRST
    listens: bool = False
    told_rank: tuple[ReplicaRank, int] | None = None
    heard_at: float | None = None
    suspected_at: float | None = None
    failed_checks: int = 0
    last_check: str = ""
    loop_held_s: float = 0.0
    illness: str = ""


@dataclass
class View:
    """One deployment as it is.

    Attributes:
        version: The version wanted now; all below but the replicas is about it.
        failures: Failed starts in a row.
        crashes: Quick deaths in a row of replicas that had been ready.
        has_run: A replica was ready once.
        has_died: A running replica died or was given up, and none has become ready since.
        was_unhealthy: It was given up.
        last_failure: Why the last one failed or died, with the user's traceback or its last output.
        restart_at: No new replica before this time.
        no_room: Why a replica could not be placed, or None.
        no_room_since: When that began; None once a replica was placed.
        undecided_until: When it is decided about all the same, though replicas of an earlier controller's time have not
            said how they are; None once they have.
        made_room: What old replicas gave up for new ones since one was last placed, by name of resource.
    """

    id: DeploymentID
    replicas: dict[ReplicaID, Replica] = field(default_factory=dict)
    version: str | None = None
    failures: int = 0
    crashes: int = 0
    has_run: bool = False
    has_died: bool = False
    was_unhealthy: bool = False
    last_failure: str = ""
    restart_at: float = 0.0
    no_room: str | None = None
    no_room_since: float | None = None
    undecided_until: float | None = None
    made_room: dict[str, float] = field(default_factory=dict)

    def in_stage(self, *stages: Stage, version: str | None = None) -> list[Replica]:
        """Return the replicas in given stages, of one version or of all."""
        return [
            each
            for each in self.replicas.values()
            if each.stage in stages and (version is None or each.version == version)
        ]

    def counts(self) -> dict[ReplicaState, int]:
        """Return how many replicas are in each state, as users see states."""
        return dict(Counter(SHOWN_AS[each.stage] for each in self.replicas.values()))

    def launched(self, event: ReplicaLaunched, now: float) -> None:
        """Take in a replica whose process was ordered."""
        rank = ReplicaRank(lowest_free({each.rank.rank for each in self.replicas.values()}))
        self.replicas[event.replica] = Replica(
            event.replica,
            event.version,
            Stage.STARTING,
            now,
            event.drain_timeout_s,
            event.silence_allowed_s,
            event.resources,
            rank=rank,
            adopted=event.adopted,
        )
        if event.adopted:
            self.undecided_until = now + ADOPTION_TIMEOUT_S

    def reported(self, event: ReplicaReported) -> None:
        """Take in what a replica says of itself."""
        replica = self.replicas.get(event.replica)
        if replica is not None:
            changes = {name: getattr(event, name) for name in _REPORTED if getattr(event, name) is not None}
            self.replicas[replica.id] = replace(replica, **changes)

    def apply(self, event: ReplicaEvent, replica: Replica, now: float) -> None:
        """Take note of what happened to a replica."""
        match event:
            case ReplicaPlaced():
                self._placed(event, replica)
            case NoRoomForReplica():
                self._refused(event, replica, now)
            case ReplicaStartFailed():
                self._start_failed(event, replica, now)
            case ReplicaReadied():
                self._readied(event, replica, now)
            case DrainBegan() | StopBegan() | KillSent():
                self._told(_STEPS[type(event)], replica, now)
            case ReplicaExited():
                self._exited(event, replica, now)
            case ReplicaUnhealthy():
                self._lost(replica, event.reason, now, was_unhealthy=True)

    def _placed(self, event: ReplicaPlaced, replica: Replica) -> None:
        others = [
            (each.node_id, each.rank) for each in self.replicas.values() if each.node_id and each.id != replica.id
        ]
        rank = on_node(replica.rank.rank, event.node_id, others)
        self.replicas[replica.id] = replace(replica, node_id=event.node_id, pid=event.pid, rank=rank)
        if replica.version == self.version:
            self.made_room.clear()
            if self.no_room is None:
                self.no_room_since = None

    def _refused(self, event: NoRoomForReplica, replica: Replica, now: float) -> None:
        del self.replicas[replica.id]
        if replica.version == self.version:
            self.no_room = event.reason
            self.no_room_since = now if self.no_room_since is None else self.no_room_since

    def _start_failed(self, event: ReplicaStartFailed, replica: Replica, now: float) -> None:
        failed = self._step(replica, Step.FAIL, now)
        if failed is not None:
            self.replicas[replica.id] = replace(failed, adopted=False)
            self._count_failure(replica, event.reason, now)

    def _readied(self, event: ReplicaReadied, replica: Replica, now: float) -> None:
        running = self._step(replica, Step.READY, now)
        if running is None:
            return
        # One of an earlier controller's time has its rank from there.
        rank, listens = (event.rank, True) if event.rank is not None else (replica.rank, replica.listens)
        self.replicas[replica.id] = replace(running, address=event.address, adopted=False, rank=rank, listens=listens)
        if replica.version == self.version:
            self.has_run, self.has_died, self.was_unhealthy = True, False, False
            self.failures, self.last_failure = 0, ""

    def _told(self, step: Step, replica: Replica, now: float) -> None:
        if self._step(replica, step, now) is not None and step is Step.DRAIN and replica.version != self.version:
            for name, amount in replica.resources.items():
                self.made_room[name] = self.made_room.get(name, 0.0) + amount

    def _exited(self, event: ReplicaExited, replica: Replica, now: float) -> None:
        del self.replicas[replica.id]
        if replica.stage is Stage.STARTING:
            self._count_failure(replica, event.how, now)
        elif replica.stage is Stage.RUNNING:
            self._lost(replica, event.how, now)

    def _lost(self, replica: Replica, reason: str, now: float, *, was_unhealthy: bool = False) -> None:
        """Count a replica that served, and does no longer."""
        if replica.version != self.version:
            return
        self.has_died, self.was_unhealthy, self.last_failure = True, was_unhealthy, reason
        # What an update brings must prove itself, however long that takes.
        updating = any(each.version != self.version for each in self.in_stage(Stage.RUNNING))
        was_quick = now - replica.since < QUICK_DEATH_S or (was_unhealthy and updating)
        self.crashes = self.crashes + 1 if was_quick else 0
        self.restart_at = now + restart_delay_s(self.crashes)

    def _count_failure(self, replica: Replica, reason: str, now: float) -> None:
        if replica.version != self.version:
            return
        self.failures += 1
        self.last_failure = reason
        if self.has_run:
            # These are tried again for ever.
            self.restart_at = now + restart_delay_s(self.failures)

    def _step(self, replica: Replica, step: Step, now: float) -> Replica | None:
        stage = after(replica.stage, step)
        if stage is None:
            return None
        kill_at = killed_at(stage, now, replica.drain_timeout_s, replica.kill_at)
        moved = self.replicas[replica.id] = replace(replica, stage=stage, since=now, kill_at=kill_at)
        return moved


def _noted(event: Fact, replica: Replica, now: float) -> Replica:
    match event:
        case ReplicaDrained():
            return replace(replica, drained=True)
        case ReplicaAwaitsRank():
            # One that is starting, and was told its rank by an earlier controller, keeps it.
            return replace(replica, listens=True, adopted=False, rank=event.rank or replica.rank)
        case RankSent():
            return replace(replica, rank=event.rank, told_rank=(event.rank, event.world_size))
        case ReplicaSuspected():
            return replace(replica, suspected_at=now)
        case ReconfigureFailed():
            return replace(replica, illness=event.reason)
        case ReplicaHeard():
            return replace(
                replica,
                heard_at=now,
                suspected_at=None,
                failed_checks=event.failures,
                last_check=event.reason,
                loop_held_s=event.loop_held_s,
            )


class Observed:
    """All that is known of this instance's deployments."""

    def __init__(self) -> None:
        self.deployments: dict[DeploymentID, View] = {}
        self._waiting: set[DeploymentID] = set()

    def view(self, deployment: DeploymentID) -> View:
        """Return what is known of a deployment; nothing, for an unknown one."""
        return self.deployments.get(deployment) or View(deployment)

    def replica(self, replica: ReplicaID) -> Replica | None:
        """Return a replica, or None for one that is gone."""
        return self.view(replica.deployment_id).replicas.get(replica)

    def forget(self, deployment: DeploymentID) -> None:
        """Drop a deployment that nobody wants, if it has no replica left."""
        if not self.view(deployment).replicas:
            self.deployments.pop(deployment, None)
            self._waiting.discard(deployment)

    def apply(self, event: Event, now: float) -> set[DeploymentID]:
        """Take note of an event; return the deployments that must be looked at."""
        match event:
            case WishChanged():
                self._wish_changed(event)
                return {event.deployment}
            case ResourcesFreed():
                return self._resources_freed()
            case ReplicaLaunched():
                self.deployments.setdefault(event.replica.deployment_id, View(event.replica.deployment_id))
                self.deployments[event.replica.deployment_id].launched(event, now)
            case ReplicaReported():
                self.view(event.replica.deployment_id).reported(event)
                # Nothing is decided by what replicas say of themselves.
                return set()
            case ReplicaHeard():
                return self._heard(event, now)
            case _:
                self._happened(event, now)
        return {event.replica.deployment_id}

    def _wish_changed(self, event: WishChanged) -> None:
        view = self.view(event.deployment)
        if view.version != event.version:
            self.deployments[event.deployment] = View(
                view.id, view.replicas, event.version, undecided_until=view.undecided_until
            )

    def _resources_freed(self) -> set[DeploymentID]:
        waiting, self._waiting = self._waiting, set()
        for deployment in waiting:
            self.view(deployment).no_room = None
        return waiting

    def _heard(self, event: ReplicaHeard, now: float) -> set[DeploymentID]:
        """Take note of how a replica fares: mostly as before, which is no reason to look at anything."""
        before = self.replica(event.replica)
        self._happened(event, now)
        after = self.replica(event.replica)
        if before is None or after is None or before.heard_at is None:
            return {event.replica.deployment_id}
        same = (before.failed_checks, before.loop_held_s) == (after.failed_checks, after.loop_held_s)
        return set() if same and before.suspected_at is None else {event.replica.deployment_id}

    def _happened(self, event: ReplicaEvent, now: float) -> None:
        deployment = event.replica.deployment_id
        view = self.view(deployment)
        replica = view.replicas.get(event.replica)
        if replica is None:
            return
        if isinstance(event, Fact):
            view.replicas[replica.id] = _noted(event, replica, now)
        else:
            view.apply(event, replica, now)
        if view.undecided_until is not None and not any(each.adopted for each in view.replicas.values()):
            view.undecided_until = None
        if view.no_room is not None:
            self._waiting.add(deployment)
