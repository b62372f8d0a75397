"""Who is started and who is replaced next. Pure.

The successor comes first: an old replica is retired only when as many others serve as are wanted. Where resources
forbid one more, one old replica makes room for each new one.
"""

from dataclasses import dataclass
from math import ceil

from salver.controller.commands import Command, DrainReplica, StartReplica, StopReplica
from salver.controller.desired import Wish
from salver.controller.lifecycle import Stage
from salver.controller.observed import Replica, View


@dataclass(frozen=True)
class _Count:
    starting: int
    running: int
    old_running: int


def surge(wish: Wish) -> int:
    """Return how many replicas above the wanted number an update may run for a while."""
    options = wish.spec.options
    share = max(options.rolling_update_percentage, options.max_surge_percent / 100)
    return max(1, ceil(share * wish.replicas))


def next_steps(wish: Wish, view: View, now: float) -> list[Command]:
    """Return what brings a deployment nearer to its wish."""
    commands: list[Command] = [
        StopReplica(each.id) for each in view.in_stage(Stage.STARTING) if each.version != wish.version
    ]
    new = view.in_stage(Stage.STARTING, Stage.RUNNING, version=wish.version)
    old = [each for each in view.in_stage(Stage.RUNNING) if each.version != wish.version]
    missing = wish.replicas - len(new)
    if missing > 0:
        allowed = wish.replicas + surge(wish) - len(new) - len(old)
        if not gave_up(wish, view) and now >= view.restart_at and view.no_room is None:
            commands += [StartReplica(wish)] * max(0, min(missing, allowed))
        commands += _make_room(view, old, blocked=view.no_room is not None)
    commands += [DrainReplica(each.id) for each in _surplus(wish, new, old)]
    return commands


def gave_up(wish: Wish, view: View) -> bool:
    """Say whether starts have failed so often, with none succeeding, that no more are tried."""
    return not view.has_run and view.failures >= wish.max_startup_failures


def _surplus(wish: Wish, new: list[Replica], old: list[Replica]) -> list[Replica]:
    """Return the replicas that are not needed: old ones first, then the youngest, those that do not run yet first."""
    running = [each for each in new if each.stage is Stage.RUNNING]
    spare = len(running) + len(old) - wish.replicas
    retired = sorted(old, key=lambda each: each.since)[: max(0, spare)]
    too_many = len(new) - wish.replicas
    youngest = sorted(new, key=lambda each: (each.stage is Stage.RUNNING, -each.since, each.id))
    return retired + youngest[: max(0, too_many)]


def _make_room(view: View, old: list[Replica], *, blocked: bool) -> list[Command]:
    leaving = view.in_stage(Stage.DRAINING, Stage.STOPPING, Stage.KILLED)
    if not blocked or not old or leaving:
        return []
    return [DrainReplica(min(old, key=lambda each: each.since).id)]
