"""Statuses as users read them: one table of transitions for deployments, one rule for applications. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from salver.controller.desired import Wish
from salver.controller.lifecycle import Stage
from salver.controller.observed import View
from salver.controller.reconcile import SLOW_START_S
from salver.controller.rollout import gave_up
from salver.schema.status import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
)


class Sign(StrEnum):
    """What a look at a deployment can show."""

    CONFIG_UPDATE = "config update"
    HEALTHY = "healthy"
    REPLICA_STARTUP_FAILED = "replica startup failed"
    REPLICA_DIED = "replica died"
    DELETE = "delete"


_D, _T = DeploymentStatus, DeploymentStatusTrigger

NEXT: dict[tuple[DeploymentStatus, Sign], tuple[DeploymentStatus, DeploymentStatusTrigger]] = {
    **{(status, Sign.CONFIG_UPDATE): (_D.UPDATING, _T.CONFIG_UPDATE_STARTED) for status in _D},
    **{(status, Sign.DELETE): (_D.UPDATING, _T.DELETING) for status in _D},
    (_D.UPDATING, Sign.HEALTHY): (_D.HEALTHY, _T.CONFIG_UPDATE_COMPLETED),
    (_D.UPSCALING, Sign.HEALTHY): (_D.HEALTHY, _T.UPSCALE_COMPLETED),
    (_D.DOWNSCALING, Sign.HEALTHY): (_D.HEALTHY, _T.DOWNSCALE_COMPLETED),
    (_D.UNHEALTHY, Sign.HEALTHY): (_D.HEALTHY, _T.UNSPECIFIED),
    (_D.DEPLOY_FAILED, Sign.HEALTHY): (_D.HEALTHY, _T.UNSPECIFIED),
    (_D.UPDATING, Sign.REPLICA_STARTUP_FAILED): (_D.DEPLOY_FAILED, _T.REPLICA_STARTUP_FAILED),
    (_D.DEPLOY_FAILED, Sign.REPLICA_STARTUP_FAILED): (_D.DEPLOY_FAILED, _T.REPLICA_STARTUP_FAILED),
    (_D.UPSCALING, Sign.REPLICA_STARTUP_FAILED): (_D.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_D.DOWNSCALING, Sign.REPLICA_STARTUP_FAILED): (_D.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_D.UNHEALTHY, Sign.REPLICA_STARTUP_FAILED): (_D.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_D.UPDATING, Sign.REPLICA_DIED): (_D.DEPLOY_FAILED, _T.HEALTH_CHECK_FAILED),
    (_D.DEPLOY_FAILED, Sign.REPLICA_DIED): (_D.DEPLOY_FAILED, _T.HEALTH_CHECK_FAILED),
    (_D.UPSCALING, Sign.REPLICA_DIED): (_D.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
    (_D.DOWNSCALING, Sign.REPLICA_DIED): (_D.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
    (_D.HEALTHY, Sign.REPLICA_DIED): (_D.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
    (_D.UNHEALTHY, Sign.REPLICA_DIED): (_D.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
}
"""A sign that is not here changes nothing."""


@dataclass(frozen=True)
class Standing:
    """A deployment's status."""

    status: DeploymentStatus = DeploymentStatus.UPDATING
    trigger: DeploymentStatusTrigger = DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    message: str = ""


def next_standing(before: Standing, wish: Wish | None, view: View, now: float) -> Standing:
    """Return a deployment's status after a look at it."""
    sign = _sign(wish, view)
    after = _moved(before, sign)
    message = "" if wish is None or sign is Sign.HEALTHY else _message(wish, view, now)
    return Standing(after.status, after.trigger, message)


def asked(before: Standing | None, wish: Wish | None) -> Standing:
    """Return a deployment's status when it was just asked for in another way, or to go."""
    return _moved(before or Standing(), Sign.DELETE if wish is None else Sign.CONFIG_UPDATE)


def _moved(before: Standing, sign: Sign | None) -> Standing:
    after = None if sign is None else NEXT.get((before.status, sign))
    return before if after is None else Standing(*after)


def _sign(wish: Wish | None, view: View) -> Sign | None:
    if wish is None:
        return Sign.DELETE
    if gave_up(wish, view) or view.failures >= wish.max_startup_failures:
        return Sign.REPLICA_STARTUP_FAILED
    running = view.in_stage(Stage.RUNNING, version=wish.version)
    if len(running) == len(view.replicas) == wish.replicas:
        return Sign.HEALTHY
    return Sign.REPLICA_DIED if view.has_died else None


def _message(wish: Wish, view: View, now: float) -> str:
    if gave_up(wish, view):
        return _given_up(wish, view)
    if view.failures:
        left = wish.max_startup_failures - view.failures
        again = "" if view.has_run else f" {left} more time(s)"
        return f"A replica failed to start with exception. Retrying{again}. Error:\n{view.last_failure}"
    if view.was_unhealthy:
        return (
            "A replica's health check failed. This deployment will be UNHEALTHY until the replica recovers or a new "
            f"deploy happens. Error:\n{view.last_failure}"
        )
    if view.has_died:
        return f"A replica died and is being replaced: {view.last_failure}"
    return _slow_start(wish, view, now)


def _given_up(wish: Wish, view: View) -> str:
    updating = any(each.version != wish.version for each in view.in_stage(Stage.RUNNING))
    where = " during a rolling update; replicas of the old version serve on" if updating else ""
    return (
        f"The deployment failed to start {view.failures + view.crashes} times in a row{where}. This may be due to a "
        f"problem with its constructor or initial health check failing. Error:\n{view.last_failure}"
    )


def _slow_start(wish: Wish, view: View, now: float) -> str:
    missing = wish.replicas - len(view.in_stage(Stage.STARTING, Stage.RUNNING, version=wish.version))
    if view.no_room is not None and missing > 0:
        if view.no_room_since is None or now - view.no_room_since < SLOW_START_S:
            return f"Waiting for resources: {view.no_room}"
        return f"{wish.id} has {_replicas(missing)} taken more than {SLOW_START_S:g}s to be scheduled. {view.no_room}"
    starting = view.in_stage(Stage.STARTING, version=wish.version)
    slow = [each for each in starting if now - each.since >= SLOW_START_S]
    if not slow:
        return ""
    return (
        f"{wish.id} has {_replicas(len(slow))} taken more than {SLOW_START_S:g}s to initialize. "
        "This may be caused by a slow __init__ or reconfigure method."
    )


def _replicas(number: int) -> str:
    return f"{number} replica{'s that have' if number != 1 else ' that has'}"


def application_standing(standings: Iterable[tuple[str, Standing]]) -> tuple[ApplicationStatus, str]:
    """Return an application's status and message from those of its deployments: the worst one wins."""
    named = list(standings)
    failed = [name for name, each in named if each.status is DeploymentStatus.DEPLOY_FAILED]
    if failed:
        return ApplicationStatus.DEPLOY_FAILED, f"Failed to update the deployments {failed}."
    unhealthy = [name for name, each in named if each.status is DeploymentStatus.UNHEALTHY]
    if unhealthy:
        return ApplicationStatus.UNHEALTHY, f"The deployments {unhealthy} are UNHEALTHY."
    if any(_is_deploying(each) for _, each in named):
        return ApplicationStatus.DEPLOYING, ""
    return ApplicationStatus.RUNNING, ""


def _is_deploying(standing: Standing) -> bool:
    if standing.status in (DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING):
        return standing.trigger is DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    return standing.status is DeploymentStatus.UPDATING
