"""When a replica is so ill that another takes its place. Pure.

Replicas check themselves and tell what came of it; the controller asks nobody. It only has a deadline for each replica
that has fallen silent.
"""

from salver.controller.lifecycle import Stage
from salver.controller.observed import Replica

MAX_FAILED_CHECKS = 3
"""So many failed health checks in a row; Ray Serve's number."""
SILENT_PERIODS = 3
MIN_SILENCE_S = 30.0
"""However often a replica reports: less than this may be a busy machine."""
SILENCE_GRACE_S = 10.0
"""From the suspicion to the verdict. A controller that was itself held up reads meanwhile what was sent to it."""
LOOP_HELD_LIMIT_S = 900.0
"""A replica whose user code holds the event loop is busy. This long it is not; Ray Serve: three probes of 300 s."""


def silence_allowed_s(period_s: float, timeout_s: float) -> float:
    """Return how long nothing may be heard of a replica with these health checks; periods vary by a tenth."""
    return max(MIN_SILENCE_S, SILENT_PERIODS * (1.1 * period_s + timeout_s))


def illness(replica: Replica, now: float) -> str | None:
    """Return why a replica must be replaced, or None while it need not."""
    if replica.stage is not Stage.RUNNING:
        return None
    if replica.illness:
        return replica.illness
    if replica.failed_checks >= MAX_FAILED_CHECKS:
        return replica.last_check
    if replica.loop_held_s >= LOOP_HELD_LIMIT_S:
        return f"Its event loop has been held by user code for {replica.loop_held_s:.0f} s.\n{replica.last_check}"
    if replica.suspected_at is not None and now >= replica.suspected_at + SILENCE_GRACE_S:
        return f"Nothing was heard of it for {now - (replica.heard_at or now):.0f} s, although its process is there."
    return None


def is_suspect(replica: Replica, now: float) -> bool:
    """Say whether a replica has been silent for so long that something may be wrong."""
    due = _silent_at(replica)
    return due is not None and now >= due


def look_again_at(replica: Replica) -> float | None:
    """Return when a running replica must be looked at if nothing is heard of it until then."""
    if replica.suspected_at is not None:
        return replica.suspected_at + SILENCE_GRACE_S
    return _silent_at(replica)


def _silent_at(replica: Replica) -> float | None:
    if replica.stage is not Stage.RUNNING or replica.heard_at is None or replica.suspected_at is not None:
        return None
    return replica.heard_at + replica.silence_allowed_s
