"""Learns how many items a batch should have, and how long it should wait for them, to keep a latency.

No clock, no chance: times come in as arguments. Every batch that ran tells two things: what its size costs, and when
items came while it ran, which is when they would have come had it waited for them. So what another choice would have
meant can be computed from what was seen, for many choices at once, and only sizes that never ran must be tried.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from math import ceil

from salver.runtime.batch_costs import CostCurve
from salver.runtime.batch_queue import Limits
from salver.runtime.batch_settings import Settings

_FIRST_SIZE = 8
_MOST_CYCLES = 16
_CYCLES_BETWEEN = 8
_SECONDS_BETWEEN = 0.05
_SHORTEST_WAIT_S = 0.00025
_MOST_SIZES = 8
_LATENCIES = 512
_AS_GOOD = 0.98
_NEARLY = 0.95
_WORTH_TRYING = 1.05
_FIRST_TRIES, _MOST_TRIES, _TRIES_EACH_BATCH = 30.0, 30.0, 0.04
_WORTH_DARING = 1.08
_DARING_CHOICES = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_QUANTILE = 0.95
_LOWEST_MARGIN, _MARGIN_DOWN, _MARGIN_UP = 0.4, 0.9, 1.02


@dataclass(frozen=True, slots=True)
class _Cycle:
    """What was seen from one batch to the next.

    Attributes:
        free: When a batch could have begun.
        arrivals: When items came that waited then, or came until the batch was answered.
        before: When the batch before began.
        there_before: How many items waited then, whether or not they became part of it.
    """

    free: float
    arrivals: list[float]
    before: float
    there_before: int


@dataclass(frozen=True, slots=True)
class _Forecast:
    """What a choice would have meant.

    Attributes:
        rate: Items a second, of the time with something to do.
        latency_s: What nearly all items would have waited.
    """

    limits: Limits
    rate: float
    latency_s: float


class AdaptiveBatching:
    """The limits of the next batch, by what was seen of earlier ones.

    Args:
        target_latency_s: The time from an item's arrival to its answer that 95 of 100 items should keep.
    """

    def __init__(self, target_latency_s: float) -> None:
        self._target_s = target_latency_s
        self._chosen = Limits(_FIRST_SIZE, 0.0)
        self._trial: int | None = None
        self._costs = CostCurve()
        self._cycles: deque[_Cycle] = deque(maxlen=_MOST_CYCLES)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._margin = 0.95
        self._last_ended = 0.0
        self._before = (0.0, 0)
        self._last_choice = 0.0
        self._cycles_since = 0
        self._bounds = Limits(_FIRST_SIZE, target_latency_s)
        self._tries_left = _FIRST_TRIES
        self._dares_left = 0
        self._next_dare = 0.0
        self._pause_s = _FIRST_PAUSE_S

    def limits(self, settings: Settings) -> Limits:
        """Return the limits of the next batch, which are within those of the settings."""
        self._bounds = Limits(settings.max_batch_size, settings.longest_wait_s)
        size = self._chosen.max_size if self._trial is None else self._trial
        return Limits(min(size, self._bounds.max_size), min(self._chosen.wait_s, self._bounds.wait_s))

    def batch_ended(self, arrivals: list[float], started: float, ended: float, waiting: list[float]) -> None:
        """Learn from a batch.

        Args:
            arrivals: When its items came.
            started: When its handler began.
            ended: When it was answered.
            waiting: When those items came that wait now.
        """
        self._costs.add(len(arrivals), ended - started, ended)
        self._latencies.extend(ended - arrival for arrival in arrivals)
        came = sorted(arrivals + waiting)
        self._cycles.append(_Cycle(min(self._last_ended, started), came, *self._before))
        self._last_ended, self._before = ended, (started, bisect_right(came, started))
        self._cycles_since += 1
        self._trial = None
        self._tries_left = min(self._tries_left + _TRIES_EACH_BATCH, _MOST_TRIES)
        if self._cycles_since >= _CYCLES_BETWEEN and ended - self._last_choice >= _SECONDS_BETWEEN:
            self._cycles_since, self._last_choice = 0, ended
            self._choose(ended)
        elif self._tries_left >= 1:
            self._try_something()

    def _choose(self, now: float) -> None:
        self._costs.settle(now)
        if self._dares_left:
            self._dares_left -= 1
            self._latencies.clear()
            if self._dares_left:
                return
        self._adjust_margin()
        budget_s = self._target_s * self._margin
        forecasts = [self._forecast(Limits(size, wait_s)) for size in self._sizes() for wait_s in self._waits()]
        fitting = [each for each in forecasts if each.latency_s <= budget_s] or _least_slow(forecasts)
        best = max(each.rate for each in fitting)
        daring = [each for each in forecasts if each.rate > best * _WORTH_DARING]
        if daring and now >= self._next_dare:
            self._dare(daring, now)
        else:
            good = [each for each in fitting if each.rate >= best * _AS_GOOD]
            self._chosen = min(good, key=lambda each: (each.limits.wait_s, -each.rate)).limits

    def _dare(self, daring: list[_Forecast], now: float) -> None:
        """For some batches, do what is forecast to be too slow.

        What waits now came while batches were made otherwise: callers that would call together come in two halves, and
        the first half would wait for the second. After a few batches they come together, and the forecast is another.
        Each time that this does not come true, it is longer until the next.
        """
        self._chosen = max(daring, key=lambda each: each.rate).limits
        self._dares_left = _DARING_CHOICES
        self._next_dare = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _adjust_margin(self) -> None:
        """Aim lower after too slow answers, and only slowly higher again."""
        measured_s = _quantile(list(self._latencies))
        if measured_s > self._target_s:
            self._margin = max(self._margin * _MARGIN_DOWN, _LOWEST_MARGIN)
            self._latencies.clear()
        else:
            self._margin = min(self._margin * _MARGIN_UP, 0.95)

    def _sizes(self) -> set[int]:
        points = self._costs.points
        seen = sorted(len(cycle.arrivals) for cycle in self._cycles)
        by_rate = sorted(points, key=lambda point: point[0] / max(point[1], 1e-9), reverse=True)
        sizes = {size for size, _ in by_rate[:_MOST_SIZES]}
        # Never more than twice of what was tried: what it costs is a guess.
        sizes |= {self._chosen.max_size, seen[len(seen) // 2], seen[-1], 2 * points[-1][0]}
        return {min(max(size, 1), 2 * points[-1][0], self._bounds.max_size) for size in sizes}

    def _waits(self) -> list[float]:
        longest_s = min(self._bounds.wait_s, self._target_s)
        waits = [0.0]
        wait_s = _SHORTEST_WAIT_S
        while wait_s < longest_s:
            waits.append(wait_s)
            wait_s *= 2
        return [*waits, longest_s]

    def _forecast(self, limits: Limits) -> _Forecast:
        """Compute what these limits would have made of the cycles that were seen."""
        items, busy_s, latencies = 0, 0.0, []
        for cycle in self._cycles:
            arrivals, head = cycle.arrivals, cycle.arrivals[0]
            begin = max(cycle.free, head)
            full = arrivals[limits.max_size - 1] if len(arrivals) >= limits.max_size else head + limits.wait_s
            start = max(begin, min(full, head + limits.wait_s))
            there = bisect_right(arrivals, start)
            size = min(there, limits.max_size)
            cost_s = self._costs.at(size)
            items += size
            busy_s += start - begin + cost_s
            # The first have waited for longest; of those left over, the last wait for some more batches.
            nearly_first, nearly_last = int(there * (1 - _QUANTILE)), ceil(there * _QUANTILE) - 1
            if limits.max_size >= cycle.there_before:
                # Had batches been as large before, there would be nothing left over from then.
                nearly_first = min(max(nearly_first, bisect_left(arrivals, cycle.before)), there - 1)
            last = start - arrivals[nearly_last] + cost_s * (1 + nearly_last // size)
            latencies.append(max(start - arrivals[nearly_first] + cost_s, last))
        return _Forecast(limits, items / max(busy_s, 1e-9), _quantile(latencies))

    def _try_something(self) -> None:
        """Run the next batch with a size of which too little is known, if that may be worth it."""
        points = self._costs.points
        if not points:
            return
        most = min(self._bounds.max_size, max(len(cycle.arrivals) for cycle in self._cycles))
        rate = max(size / max(cost_s, 1e-9) for size, cost_s in points)
        size = self._costs.untried(rate * _WORTH_TRYING, most)
        if size is not None and self._costs.at(size) <= self._target_s * self._margin:
            self._trial = size
            self._tries_left -= 1


def _least_slow(forecasts: list[_Forecast]) -> list[_Forecast]:
    """Where nothing is quick enough, first get through what waits, then be as quick as that allows."""
    most = max(each.rate for each in forecasts)
    return [min((each for each in forecasts if each.rate >= most * _NEARLY), key=lambda each: each.latency_s)]


def _quantile(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * _QUANTILE), len(values) - 1)] if values else 0.0
