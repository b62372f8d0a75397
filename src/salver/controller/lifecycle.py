"""The life of a replica, as one table. Pure."""

from enum import StrEnum

from salver.schema.status import ReplicaState


class Stage(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLED = "killed"


class Step(StrEnum):
    """What moves a replica on."""

    READY = "ready"
    FAIL = "fail"
    DRAIN = "drain"
    STOP = "stop"
    KILL = "kill"


NEXT: dict[tuple[Stage, Step], Stage] = {
    (Stage.STARTING, Step.READY): Stage.RUNNING,
    (Stage.STARTING, Step.FAIL): Stage.STOPPING,
    (Stage.STARTING, Step.STOP): Stage.STOPPING,
    (Stage.RUNNING, Step.DRAIN): Stage.DRAINING,
    (Stage.RUNNING, Step.STOP): Stage.STOPPING,
    (Stage.DRAINING, Step.STOP): Stage.STOPPING,
    **{(stage, Step.KILL): Stage.KILLED for stage in Stage},
}

SHOWN_AS: dict[Stage, ReplicaState] = {
    Stage.STARTING: ReplicaState.STARTING,
    Stage.RUNNING: ReplicaState.RUNNING,
    Stage.DRAINING: ReplicaState.STOPPING,
    Stage.STOPPING: ReplicaState.STOPPING,
    Stage.KILLED: ReplicaState.STOPPING,
}


def after(stage: Stage, step: Step) -> Stage | None:
    """Return the stage that a step leads to, or None where the step comes too late to matter."""
    return NEXT.get((stage, step))
