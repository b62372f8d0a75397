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
    **{(stage, Step.KILL): Stage.KILLED for stage in Stage if stage is not Stage.KILLED},
}

SHOWN_AS: dict[Stage, ReplicaState] = {
    Stage.STARTING: ReplicaState.STARTING,
    Stage.RUNNING: ReplicaState.RUNNING,
    Stage.DRAINING: ReplicaState.STOPPING,
    Stage.STOPPING: ReplicaState.STOPPING,
    Stage.KILLED: ReplicaState.STOPPING,
}

STOP_GRACE_S = 5.0
"""Seconds a replica's process gets at least to end by itself once it was told to."""


def after(stage: Stage, step: Step) -> Stage | None:
    """Return the stage that a step leads to, or None where the step comes too late to matter."""
    return NEXT.get((stage, step))


def killed_at(stage: Stage, now: float, drain_timeout_s: float, before: float | None) -> float | None:
    """Return when a replica that came to a stage now is killed unless it is gone by then; None for never.

    Args:
        before: The same for the stage it comes from. What is left of the time to drain is there for stopping too.
    """
    match stage:
        case Stage.DRAINING:
            return now + drain_timeout_s
        case Stage.STOPPING:
            return max(now + STOP_GRACE_S, before or 0.0)
        case _:
            return None
