"""(desired, observed, now) → commands, for one deployment. Pure.

`rollout` decides who should live; this file adds what those who leave need, and when to look again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from salver.controller.commands import (
    Command,
    DrainReplica,
    KillReplica,
    RetireReplica,
    SendRank,
    StopReplica,
    SuspectReplica,
)
from salver.controller.desired import Wish
from salver.controller.health import illness, is_suspect, look_again_at
from salver.controller.lifecycle import Stage
from salver.controller.observed import Replica, View
from salver.controller.ranks import without_gaps
from salver.controller.rollout import next_steps, proven_at

SLOW_START_S = 30.0
"""After this long a start is worth a word in the status."""


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again if nothing happens."""

    commands: list[Command]
    look_again_at: float | None


def reconcile(wish: Wish | None, view: View, now: float) -> Plan:
    """Return what brings a deployment nearer to its wish."""
    if is_undecided(view, now):
        return Plan([], view.undecided_until)
    commands = _let_go(view) if wish is None else next_steps(wish, view, now)
    # A replica that leaves without ever having served has nothing to drain.
    commands = [_stop_if_unready(view, each) for each in commands]
    commands += [command for each in view.replicas.values() if (command := _help_leave(each, now)) is not None]
    commands += _treat(view, now)
    if wish is not None:
        commands += _send_ranks(wish, view)
    return Plan(commands, min((time for time in _times(view) if time > now), default=None))


def is_undecided(view: View, now: float) -> bool:
    """Say whether a new controller does not know yet how the replicas that it found are."""
    return view.undecided_until is not None and now < view.undecided_until


def _let_go(view: View) -> list[Command]:
    return [DrainReplica(each.id) for each in view.in_stage(Stage.STARTING, Stage.RUNNING)]


def _stop_if_unready(view: View, command: Command) -> Command:
    if isinstance(command, DrainReplica) and view.replicas[command.replica].stage is Stage.STARTING:
        return StopReplica(command.replica)
    return command


def _help_leave(replica: Replica, now: float) -> Command | None:
    """Return the next step out for a replica that is leaving."""
    if replica.stage is Stage.DRAINING and replica.drained:
        return StopReplica(replica.id)
    return KillReplica(replica.id) if replica.kill_at is not None and now >= replica.kill_at else None


def _treat(view: View, now: float) -> Iterator[Command]:
    """Yield what is to be done about replicas that do not fare well."""
    for each in view.in_stage(Stage.RUNNING):
        if (reason := illness(each, now)) is not None:
            yield RetireReplica(each.id, reason)
        elif is_suspect(each, now):
            yield SuspectReplica(each.id)


def _send_ranks(wish: Wish, view: View) -> Iterator[Command]:
    """Yield what tells replicas their rank where they do not know it yet."""
    ranks = {each.id: each.rank for each in view.replicas.values()}
    if len(ranks) == wish.replicas == len(view.in_stage(Stage.RUNNING)):
        # At rest. Before, a successor may be on its way to a rank that is free.
        ranks = without_gaps({each.id: (each.node_id, each.rank) for each in view.replicas.values()})
    for each in view.in_stage(Stage.STARTING, Stage.RUNNING):
        if each.listens and each.node_id and each.told_rank != (ranks[each.id], wish.replicas):
            yield SendRank(each.id, ranks[each.id], wish.replicas)


def _times(view: View) -> Iterator[float]:
    """Yield when something may become due."""
    yield view.restart_at
    if view.no_room_since is not None:
        yield view.no_room_since + SLOW_START_S
    for each in view.replicas.values():
        if each.stage is Stage.STARTING:
            yield each.since + SLOW_START_S
        elif each.stage is Stage.RUNNING:
            yield proven_at(view, each)
            if (due := look_again_at(each)) is not None:
                yield due
        elif each.kill_at is not None:
            yield each.kill_at
