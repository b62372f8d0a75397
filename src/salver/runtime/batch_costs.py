"""What batches cost by their size, learned from those that ran."""

from collections import deque
from itertools import pairwise
from math import log
from statistics import median

_KEPT_SAMPLES = 9
_TRUSTED_SAMPLES = 3
_OLDEST_S = 20.0
_SURPRISE = log(1.3)
_SURPRISES = 3
_SPREADS = 3.5
_LARGEST_STRAY = 0.5
_STRAY_WEIGHT = 0.05


class CostCurve:
    """Execution times by batch size.

    Each size has the median of its last few samples, so that a single slow batch does not count. Costs may jump
    anywhere (hardware works in tiles), so nothing is fitted through all sizes: between two known ones, costs are
    interpolated.
    """

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[float, float]]] = {}
        self._surprises = 0
        # How far costs usually are from what is known, as a logarithm.
        self._spread = 0.0
        self._points: list[tuple[int, float]] = []

    def add(self, size: int, cost_s: float, now: float) -> None:
        """Learn from a batch. When several in a row are all too slow, or all too fast, older ones count no more."""
        known = self._samples.get(size)
        if known is None:
            known = self._samples[size] = deque(maxlen=_KEPT_SAMPLES)
        else:
            self._compare(cost_s, median(cost for _, cost in known))
        known.append((now, cost_s))
        if abs(self._surprises) >= _SURPRISES:
            self._samples = {size: deque([(now, cost_s)], maxlen=_KEPT_SAMPLES)}
            self._surprises = 0

    def settle(self, now: float) -> None:
        """Take in what was added; forget what is old."""
        for size, samples in list(self._samples.items()):
            while samples and samples[0][0] < now - _OLDEST_S:
                samples.popleft()
            if not samples:
                del self._samples[size]
        points = {size: median(cost for _, cost in samples) for size, samples in self._samples.items()}
        trusted = [size for size in points if len(self._samples[size]) >= _TRUSTED_SAMPLES]
        self._points = sorted((size, points[size]) for size in trusted or points)

    @property
    def points(self) -> list[tuple[int, float]]:
        """Return the known sizes and their costs in seconds, by size."""
        return self._points

    def at(self, size: int) -> float:
        """Return what a batch of a size costs, in seconds, by what is known; 0 while nothing is."""
        points = self._points
        if not points:
            return 0.0
        if size <= points[0][0]:
            return points[0][1]
        for (low, low_cost), (high, high_cost) in pairwise(points):
            if size <= high:
                return low_cost + (high_cost - low_cost) * (size - low) / (high - low)
        largest, cost = points[-1]
        return cost + self._slope() * (size - largest)

    def untried(self, rate: float, most: int) -> int | None:
        """Return a size that may bring more items a second than a rate, if there is one among those not tried.

        A larger batch hardly costs less than a smaller one. So what is between two known sizes costs at least as much
        as the cheaper of them; where even that would be no gain, there is nothing to find.
        """
        best, found = rate, None
        for (low, low_cost), (high, high_cost) in pairwise(self._points):
            top = min(high - 1, most)
            cost = min(low_cost, high_cost)
            if top > low and cost > 0 and top / cost > best:
                best, found = top / cost, (low + top + 1) // 2
        return found

    def _compare(self, cost_s: float, known_s: float) -> None:
        stray = log(max(cost_s, 1e-9) / max(known_s, 1e-9))
        surprise = max(_SURPRISE, _SPREADS * self._spread)
        self._spread += _STRAY_WEIGHT * (min(abs(stray), _LARGEST_STRAY) - self._spread)
        direction = (stray > surprise) - (stray < -surprise)
        # Counts on only while all are surprising in the same direction.
        self._surprises = self._surprises + direction if direction * self._surprises >= 0 and direction else 0

    def _slope(self) -> float:
        """Return what each item above the largest known size costs; hopeful, since only trying tells."""
        largest, cost = self._points[-1]
        below = [point for point in self._points if point[0] <= largest / 2]
        if not below:
            return cost / largest / 2
        size, smaller = below[-1]
        return min(max((cost - smaller) / (largest - size), 0.0), cost / largest)
