"""What a replica tells the controller of itself: only what changed, and never more often than ten times a second."""

from collections.abc import Callable
from typing import Any

import msgspec

from salver.lib.deadlines import Timer
from salver.schema.ids import ReplicaID
from salver.schema.messages import Message, ReplicaReport

MIN_PAUSE_S = 0.1

_NOTHING: dict[str, Any] = {"multiplexed_model_ids": (), "routing_stats": {}, "autoscaling_stats": {}, "metadata": {}}


class Reports:
    """Collects what changes and tells it.

    Args:
        tell: Tells the controller.
        now: Tells monotonic seconds; an event loop's.
        call_later: Calls back after so many seconds; an event loop's.
    """

    def __init__(
        self,
        replica: ReplicaID,
        tell: Callable[[Message], None],
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._replica = replica
        self._tell = tell
        self._now = now
        self._call_later = call_later
        self._told = dict(_NOTHING)
        self._latest: dict[str, Any] = {}
        self._free_at = now()
        self._timer: Timer | None = None

    def change(self, field: str, value: Any) -> None:
        """Take what is true of a field of `ReplicaReport` from now on; it is told now or soon."""
        self._latest[field] = value
        if self._timer is not None:
            return
        pause_s = self._free_at - self._now()
        if pause_s <= 0:
            self.flush()
        else:
            self._timer = self._call_later(pause_s, self.flush)

    def flush(self) -> None:
        """Tell now what has changed."""
        self.close()
        changed = {name: value for name, value in self._latest.items() if value != self._told[name]}
        self._latest.clear()
        if changed:
            self._told.update(changed)
            self._free_at = self._now() + MIN_PAUSE_S
            self._tell(msgspec.structs.replace(ReplicaReport(replica=self._replica), **changed))

    def repeat(self) -> None:
        """Tell everything again: there is somebody new who knows nothing."""
        self._latest = {**self._told, **self._latest}
        self._told = dict(_NOTHING)
        self.flush()

    def close(self) -> None:
        """Tell nothing more, unless something changes again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
