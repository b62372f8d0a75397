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
_FAILED = (_D.DEPLOY_FAILED, _T.REPLICA_STARTUP_FAILED)
_UNHEALTHY_START = (_D.UNHEALTHY, _T.REPLICA_STARTUP_FAILED)
_UNHEALTHY = (_D.UNHEALTHY, _T.HEALTH_CHECK_FAILED)

NEXT: dict[tuple[DeploymentStatus, Sign], tuple[DeploymentStatus, DeploymentStatusTrigger]] = {
    **{(status, Sign.CONFIG_UPDATE): (_D.UPDATING, _T.CONFIG_UPDATE_STARTED) for status in _D},
    **{(status, Sign.DELETE): (_D.UPDATING, _T.DELETING) for status in _D},
    (_D.UPDATING, Sign.HEALTHY): (_D.HEALTHY, _T.CONFIG_UPDATE_COMPLETED),
    (_D.UPSCALING, Sign.HEALTHY): (_D.HEALTHY, _T.UPSCALE_COMPLETED),
    (_D.DOWNSCALING, Sign.HEALTHY): (_D.HEALTHY, _T.DOWNSCALE_COMPLETED),
    (_D.UNHEALTHY, Sign.HEALTHY): (_D.HEALTHY, _T.UNSPECIFIED),
    (_D.DEPLOY_FAILED, Sign.HEALTHY): (_D.HEALTHY, _T.UNSPECIFIED),
    (_D.UPDATING, Sign.REPLICA_STARTUP_FAILED): _FAILED,
    (_D.DEPLOY_FAILED, Sign.REPLICA_STARTUP_FAILED): _FAILED,
    (_D.UPSCALING, Sign.REPLICA_STARTUP_FAILED): _UNHEALTHY_START,
    (_D.DOWNSCALING, Sign.REPLICA_STARTUP_FAILED): _UNHEALTHY_START,
    (_D.UNHEALTHY, Sign.REPLICA_STARTUP_FAILED): _UNHEALTHY_START,
    (_D.UPSCALING, Sign.REPLICA_DIED): _UNHEALTHY,
    (_D.DOWNSCALING, Sign.REPLICA_DIED): _UNHEALTHY,
    (_D.HEALTHY, Sign.REPLICA_DIED): _UNHEALTHY,
    (_D.UNHEALTHY, Sign.REPLICA_DIED): _UNHEALTHY,
}


@dataclass(frozen=True)
class Standing:
    """A deployment's status."""

    status: DeploymentStatus = DeploymentStatus.UPDATING
    trigger: DeploymentStatusTrigger = DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    message: str = ""


def next_standing(before: Standing, wish: Wish | None, view: View, now: float) -> Standing:
    """Return a deployment's status after a look at it."""
    sign = _sign(before, wish, view)
    status, trigger = before.status, before.trigger
    if sign is not None:
        status, trigger = NEXT.get((before.status, sign), (status, trigger))
    return Standing(status, trigger, "" if wish is None else _message(wish, view, status, now))


def updated(before: Standing | None) -> Standing:
    """Return a deployment's status when it was just asked for."""
    status, trigger = NEXT[(before or Standing()).status, Sign.CONFIG_UPDATE]
    return Standing(status, trigger)


def _sign(before: Standing, wish: Wish | None, view: View) -> Sign | None:
    if wish is None:
        return Sign.DELETE
    if gave_up(wish, view):
        return Sign.REPLICA_STARTUP_FAILED
    running = view.in_stage(Stage.RUNNING)
    if len(running) == len(view.replicas) == wish.replicas and all(each.version == wish.version for each in running):
        return Sign.HEALTHY
    if before.status is DeploymentStatus.HEALTHY and len(running) < wish.replicas:
        return Sign.REPLICA_DIED
    return None


def _message(wish: Wish, view: View, status: DeploymentStatus, now: float) -> str:
    if gave_up(wish, view):
        return (
            f"The deployment failed to start {view.failures} times in a row. This may be due to a problem with its "
            f"constructor or initial health check failing. Error:\n{view.last_failure}"
        )
    if view.failures and not view.has_run:
        left = wish.max_startup_failures - view.failures
        return f"A replica failed to start with exception. Retrying {left} more time(s). Error:\n{view.last_failure}"
    if view.failures:
        return f"A replica failed to start with exception. Retrying. Error:\n{view.last_failure}"
    if status is DeploymentStatus.UNHEALTHY:
        return f"A replica died ({view.last_failure}). It is being replaced."
    return _slow_start(wish, view, now)


def _slow_start(wish: Wish, view: View, now: float) -> str:
    if view.no_room is not None:
        waited = now - view.no_room_since
        return f"Waiting for resources: {view.no_room}" if waited < SLOW_START_S else (
            f"{wish.id} has replicas that have taken more than {SLOW_START_S:g}s to be scheduled. {view.no_room}"
        )
    slow = [each for each in view.in_stage(Stage.STARTING) if now - each.since >= SLOW_START_S]
    if not slow:
        return ""
    return (
        f"{wish.id} has {len(slow)} replicas that have taken more than {SLOW_START_S:g}s to initialize. "
        "This may be caused by a slow __init__ or reconfigure method."
    )


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
