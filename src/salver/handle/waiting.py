"""Requests that wait: in order, or by priority: the more urgent first, in order within a class, and none for ever.

By priority, a request is served before all that came after it, but for more urgent ones: each class of difference lets
those overtake it that came up to `AGEING_S` later. So one that waits grows more urgent by a class in each `AGEING_S`,
and the order of two never changes while they wait: it is that of `arrival + urgency * AGEING_S`, a deadline of sorts.

Pure: what tells the time is an argument.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from typing import Final

from salver.handle.outgoing import Outgoing
from salver.schema.urgency import LEAST_URGENT

AGEING_S: Final = 5.0
"""Waiting so long is worth a class. A request of urgency 7 is overtaken for 20 s at most by those of the default, 3."""


class WaitingInOrder:
    """A queue of requests, the oldest first.

    Args:
        requests: What waits already, in order.

    Attributes:
        by_priority: It is not the oldest that comes first.
    """

    by_priority = False

    def __init__(self, requests: Iterable[Outgoing] = ()) -> None:
        self._requests = deque(requests)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Outgoing]:
        """Yield what waits in the order in which it will be served."""
        return iter(self._requests)

    def append(self, outgoing: Outgoing) -> None:
        """Add a request in its place; one that waited before has the place that it had."""
        _insert(self._requests, outgoing)

    def first(self) -> Outgoing | None:
        """Return the request whose turn it is, and drop those before it that nobody wants any more."""
        requests = self._requests
        while requests and requests[0].abandoned:
            requests.popleft()
        return requests[0] if requests else None

    def remove(self, outgoing: Outgoing) -> None:
        """Take a request out wherever it is.

        Raises:
            ValueError: It does not wait.
        """
        self._requests.remove(outgoing)

    def displaced_by(self, _outgoing: Outgoing) -> Outgoing | None:
        """Return None: nobody makes room for a newcomer."""
        return None


class WaitingByPriority:
    """A queue of requests, the most urgent first.

    Args:
        requests: What waits already.
        now: Tells monotonic seconds.

    Attributes:
        by_priority: It is not the oldest that comes first.
    """

    by_priority = True

    def __init__(self, requests: Iterable[Outgoing], now: Callable[[], float]) -> None:
        self._classes: list[deque[Outgoing]] = [deque() for _ in range(LEAST_URGENT + 1)]
        self._now = now
        for each in requests:
            self.append(each)

    def __len__(self) -> int:
        return sum(map(len, self._classes))

    def __iter__(self) -> Iterator[Outgoing]:
        """Yield what waits in the order in which it will be served."""
        return merge(*self._classes, key=_turn)

    def append(self, outgoing: Outgoing) -> None:
        """Add a request in its place; one that waited before has the place that it had."""
        waiting = self._classes[outgoing.hints.urgency]
        place = _insert(waiting, outgoing)
        if getattr(outgoing, "arrived_at", None) is None:
            last = place == len(waiting) - 1
            outgoing.arrived_at = self._now() if last else waiting[place + 1].arrived_at

    def first(self) -> Outgoing | None:
        """Return the request whose turn it is, and drop those before it that nobody wants any more."""
        for waiting in self._classes:
            while waiting and waiting[0].abandoned:
                waiting.popleft()
        return min((each[0] for each in self._classes if each), key=_turn, default=None)

    def remove(self, outgoing: Outgoing) -> None:
        """Take a request out wherever it is.

        Raises:
            ValueError: It does not wait.
        """
        self._classes[outgoing.hints.urgency].remove(outgoing)

    def displaced_by(self, outgoing: Outgoing) -> Outgoing | None:
        """Take out and return what would be served last, if a newcomer comes before it; None otherwise.

        A newcomer comes before it only if it is more urgent: it is younger than all that wait.
        """
        for waiting in self._classes:
            while waiting and waiting[-1].abandoned:
                waiting.pop()
        last = max((each for each in self._classes if each), key=lambda each: _turn(each[-1]), default=None)
        if last is None or self._now() + outgoing.hints.urgency * AGEING_S >= _turn(last[-1])[0]:
            return None
        return last.pop()


def _insert(waiting: deque[Outgoing], outgoing: Outgoing) -> int:
    """Put a request where its order has it, mostly at the end; return its place."""
    place = len(waiting)
    while place and waiting[place - 1].order > outgoing.order:
        place -= 1
    waiting.insert(place, outgoing)
    return place


def _turn(outgoing: Outgoing) -> tuple[float, int]:
    return outgoing.arrived_at + outgoing.hints.urgency * AGEING_S, outgoing.order
