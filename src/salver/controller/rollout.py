"""Who is started and who is replaced next. Pure.

The successor comes first: an old replica is retired only when as many others serve as are wanted. Where resources
forbid one more, one old replica makes room for each new one.
"""

from math import ceil

from salver.controller.commands import Command, DrainReplica, StartReplica, StopReplica
from salver.controller.desired import Wish
from salver.controller.lifecycle import Stage
from salver.controller.observed import Replica, View
from salver.controller.placement import resources_of
from salver.lib.restarts import QUICK_DEATH_S


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
    old = _old(wish, view)
    missing = wish.replicas - len(new)
    if missing > 0 and now >= view.restart_at and not gave_up(wish, view):
        if view.no_room is None:
            allowed = wish.replicas + surge(wish) - len(new) - len(old)
            commands += [StartReplica(wish)] * min(missing, allowed, _attempts_left(wish, view, new))
        else:
            commands += [DrainReplica(each.id) for each in _makes_room(wish, view, new, old)]
    commands += [DrainReplica(each.id) for each in _surplus(wish, view, new, old, now)]
    return commands


def gave_up(wish: Wish, view: View) -> bool:
    """Say whether starts have failed so often that no more are tried.

    A version of which one replica ran is tried for ever, unless old ones serve: their update has failed.
    """
    if view.version != wish.version:
        return False
    if _old(wish, view):
        return view.failures + view.crashes >= wish.max_startup_failures
    return not view.has_run and view.failures >= wish.max_startup_failures


def proven_at(view: View, replica: Replica) -> float:
    """Return from when on a running replica can take an old one's place: later, where others have died young."""
    return replica.since + QUICK_DEATH_S if view.crashes else replica.since


def _attempts_left(wish: Wish, view: View, new: list[Replica]) -> int:
    """Return how many more starts may be tried: once one has failed, only what the limit of failures leaves."""
    if view.has_run or not view.failures:
        return wish.replicas
    return wish.max_startup_failures - view.failures - len(new)


def _old(wish: Wish, view: View) -> list[Replica]:
    return [each for each in view.in_stage(Stage.RUNNING) if each.version != wish.version]


def _surplus(wish: Wish, view: View, new: list[Replica], old: list[Replica], now: float) -> list[Replica]:
    """Return the replicas that are not needed: old ones first, then the youngest, those that do not run yet first."""
    proven = [each for each in new if each.stage is Stage.RUNNING and proven_at(view, each) <= now]
    spare = len(proven) + len(old) - wish.replicas
    retired = sorted(old, key=_age)[: max(0, spare)]
    too_many = len(new) - wish.replicas
    youngest = sorted(new, key=lambda each: (each.stage is Stage.RUNNING, -each.since, each.id))
    return retired + youngest[: max(0, too_many)]


def _makes_room(wish: Wish, view: View, new: list[Replica], old: list[Replica]) -> list[Replica]:
    """Return the old replica that goes so that a new one finds room, if that can help."""
    if any(each.stage is Stage.STARTING for each in new):
        return []  # It serves first.
    if view.in_stage(Stage.DRAINING, Stage.STOPPING, Stage.KILLED):
        return []  # What they hold may be enough.
    needed = resources_of(wish.spec.options.ray_actor_options)
    short = [name for name, amount in needed.items() if view.made_room.get(name, 0.0) < amount]
    return sorted((each for each in old if any(name in each.resources for name in short)), key=_age)[:1]


def _age(replica: Replica) -> tuple[float, str]:
    return replica.since, replica.id.unique_id
