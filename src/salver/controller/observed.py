"""What is: replicas and how their deployments fare. `apply` is the only thing that changes it. Pure."""

from collections import Counter
from dataclasses import dataclass, field, replace

from salver.controller.events import (
    DrainBegan,
    Event,
    KillSent,
    NoRoomForReplica,
    ReplicaDrained,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaPlaced,
    ReplicaReadied,
    ReplicaStartFailed,
    ResourcesFreed,
    StopBegan,
    WishChanged,
)
from salver.controller.lifecycle import SHOWN_AS, Stage, Step, after
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.status import ReplicaState

QUICK_DEATH_S = 5.0
"""A replica that dies younger than this makes its successor wait, longer each time."""
MAX_RESTART_DELAY_S = 10.0
FIRST_RESTART_DELAY_S = 0.1


@dataclass(frozen=True)
class Replica:
    """One replica.

    Attributes:
        since: When it came to its stage.
        address: Where it answers; "" until it is ready.
        drained: It has nothing left to do.
    """

    id: ReplicaID
    version: str
    stage: Stage
    since: float
    drain_timeout_s: float
    placed: bool = False
    node_id: str = ""
    pid: int = 0
    address: str = ""
    drained: bool = False

    @property
    def is_live(self) -> bool:
        """Say whether it serves, or is about to."""
        return self.stage in (Stage.STARTING, Stage.RUNNING)


@dataclass
class View:
    """One deployment as it is.

    Attributes:
        version: The version wanted now; the counts below are about it.
        failures: Failed starts in a row.
        last_failure: Why the last one failed, with the user's traceback.
        has_run: A replica of this version was ready once.
        no_room: Why a replica could not be placed, or None.
        crashes: Quick deaths in a row of replicas that had been ready.
        restart_at: No new replica before this time.
    """

    id: DeploymentID
    replicas: dict[ReplicaID, Replica] = field(default_factory=dict)
    version: str | None = None
    failures: int = 0
    last_failure: str = ""
    has_run: bool = False
    no_room: str | None = None
    no_room_since: float = 0.0
    crashes: int = 0
    restart_at: float = 0.0

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


class Observed:
    """All that is known of this instance's deployments."""

    def __init__(self) -> None:
        self.deployments: dict[DeploymentID, View] = {}

    def view(self, deployment: DeploymentID) -> View:
        """Return what is known of a deployment; nothing, for a new one."""
        view = self.deployments.get(deployment)
        if view is None:
            view = self.deployments[deployment] = View(deployment)
        return view

    def replica(self, replica: ReplicaID) -> Replica | None:
        """Return a replica, or None for one that is gone."""
        view = self.deployments.get(replica.deployment_id)
        return None if view is None else view.replicas.get(replica)

    def forget(self, deployment: DeploymentID) -> None:
        """Drop a deployment that nobody wants and that has no replica left."""
        view = self.deployments.get(deployment)
        if view is not None and not view.replicas:
            del self.deployments[deployment]

    def apply(self, event: Event, now: float) -> set[DeploymentID]:
        """Take note of an event; return the deployments that must be looked at."""
        match event:
            case WishChanged():
                return self._wish_changed(event)
            case ResourcesFreed():
                return self._resources_freed()
            case _:
                self._apply_to_replica(event, now)
                return {event.replica.deployment_id}

    def _wish_changed(self, event: WishChanged) -> set[DeploymentID]:
        view = self.view(event.deployment)
        if view.version != event.version:
            self.deployments[event.deployment] = View(view.id, view.replicas, event.version)
        return {event.deployment}

    def _resources_freed(self) -> set[DeploymentID]:
        waiting = [view for view in self.deployments.values() if view.no_room is not None]
        for view in waiting:
            view.no_room = None
        return {view.id for view in waiting}

    def _apply_to_replica(self, event: Event, now: float) -> None:
        assert not isinstance(event, WishChanged | ResourcesFreed)
        view = self.view(event.replica.deployment_id)
        match event:
            case ReplicaLaunched():
                view.replicas[event.replica] = Replica(
                    event.replica, event.version, Stage.STARTING, now, event.drain_timeout_s
                )
            case ReplicaPlaced():
                self._change(view, event.replica, placed=True, node_id=event.node_id, pid=event.pid)
            case NoRoomForReplica():
                view.replicas.pop(event.replica, None)
                view.no_room, view.no_room_since = event.reason, view.no_room_since or now
            case ReplicaStartFailed():
                self._start_failed(view, event, now)
            case ReplicaReadied():
                self._readied(view, event, now)
            case DrainBegan():
                self._step(view, event.replica, Step.DRAIN, now)
            case StopBegan():
                self._step(view, event.replica, Step.STOP, now)
            case KillSent():
                self._step(view, event.replica, Step.KILL, now)
            case ReplicaDrained():
                self._change(view, event.replica, drained=True)
            case ReplicaExited():
                self._exited(view, event, now)

    def _start_failed(self, view: View, event: ReplicaStartFailed, now: float) -> None:
        replica = view.replicas.get(event.replica)
        if replica is None or replica.stage is not Stage.STARTING:
            return
        if replica.placed:
            self._step(view, replica.id, Step.FAIL, now)
        else:
            del view.replicas[replica.id]
        self._count_failure(view, replica, event.reason)

    def _readied(self, view: View, event: ReplicaReadied, now: float) -> None:
        replica = view.replicas.get(event.replica)
        if replica is None or not self._step(view, replica.id, Step.READY, now):
            return
        self._change(view, replica.id, address=event.address)
        if replica.version == view.version:
            view.has_run = True
            view.failures, view.last_failure = 0, ""
            view.no_room, view.no_room_since = None, 0.0

    def _exited(self, view: View, event: ReplicaExited, now: float) -> None:
        replica = view.replicas.pop(event.replica, None)
        if replica is None:
            return
        if replica.stage is Stage.STARTING:
            self._count_failure(view, replica, event.how)
        elif replica.stage is Stage.RUNNING and replica.version == view.version:
            view.last_failure = event.how
            view.crashes = view.crashes + 1 if now - replica.since < QUICK_DEATH_S else 0
            view.restart_at = now + restart_delay_s(view.crashes)

    def _count_failure(self, view: View, replica: Replica, reason: str) -> None:
        if replica.version == view.version:
            view.failures += 1
            view.last_failure = reason

    def _step(self, view: View, replica_id: ReplicaID, step: Step, now: float) -> bool:
        replica = view.replicas.get(replica_id)
        stage = None if replica is None else after(replica.stage, step)
        if replica is None or stage is None:
            return False
        view.replicas[replica_id] = replace(replica, stage=stage, since=now)
        return True

    def _change(self, view: View, replica_id: ReplicaID, **changes: object) -> None:
        replica = view.replicas.get(replica_id)
        if replica is not None:
            view.replicas[replica_id] = replace(replica, **changes)  # type: ignore[arg-type]


def restart_delay_s(crashes: int) -> float:
    """Return how long to wait before a replica that crashed is replaced: nothing the first time, then doubling."""
    if crashes <= 1:
        return 0.0
    delay: float = FIRST_RESTART_DELAY_S * 2 ** min(crashes - 2, 20)
    return min(MAX_RESTART_DELAY_S, delay)
