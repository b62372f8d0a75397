"""Many deadlines and one timer: what is over is told so a little after its time, never before."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Protocol

_GRAINS = ((10.0, 0.01), (1000.0, 0.1))
"""What ends within so many seconds is told within so many."""
_COARSEST_S = 5.0
_LONGEST_DELAY_S = 3600.0


class Mortal(Protocol):
    """What has a deadline."""

    def on_deadline(self, now: float) -> None:
        """Its time is over."""


class Timer(Protocol):
    """A callback that has not come yet."""

    def cancel(self) -> None:
        """Never call back."""


class Deadlines:
    """Calls back whoever is watched at its deadline.

    Deadlines that are near each other share a bucket, and only the earliest bucket has a timer.

    Args:
        now: Tells monotonic seconds; an event loop's or the machine's.
        call_later: Calls back after so many seconds; an event loop's.
    """

    def __init__(self, now: Callable[[], float], call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        self.now = now
        self._call_later = call_later
        self._buckets: dict[float, set[Mortal]] = {}
        self._order: list[float] = []
        self._keys: dict[Mortal, float] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def watch(self, mortal: Mortal, deadline: float) -> None:
        """Call back at this time, unless that happens earlier anyway: then it is for the called to ask again."""
        known = self._keys.get(mortal)
        if known is not None:
            if known <= deadline:
                return
            self.forget(mortal)
        key = self._key(deadline)
        self._keys[mortal] = key
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.add(mortal)
            return
        self._buckets[key] = {mortal}
        heappush(self._order, key)
        if self._order[0] == key:
            self._set_timer()

    def forget(self, mortal: Mortal) -> None:
        """Do not call back; any thread may ask for that."""
        key = self._keys.pop(mortal, None)
        if key is not None and (bucket := self._buckets.get(key)) is not None:
            bucket.discard(mortal)

    def close(self) -> None:
        """Call nobody back any more."""
        self._buckets.clear()
        self._order.clear()
        self._keys.clear()
        self._set_timer()

    def _key(self, deadline: float) -> float:
        remaining_s = deadline - self.now()
        grain_s = next((grain for horizon, grain in _GRAINS if remaining_s < horizon), _COARSEST_S)
        # The product may be a little less than it should.
        return max(ceil(deadline / grain_s) * grain_s, deadline)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            delay_s = min(max(self._order[0] - self.now(), 0.0), _LONGEST_DELAY_S)
            # A millisecond more, because loops round down.
            self._timer = self._call_later(delay_s + 0.001, self._look)

    def _look(self) -> None:
        now = self.now()
        try:
            while self._order and self._order[0] <= now:
                # A copy: others forget meanwhile.
                for mortal in list(self._buckets.pop(heappop(self._order))):
                    if self._keys.pop(mortal, None) is not None:
                        mortal.on_deadline(now)
        finally:
            self._set_timer()
