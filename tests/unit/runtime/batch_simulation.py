"""Batches in virtual time: clients, a handler of a known cost, and limits that are fixed or adapt."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from salver.runtime.batch_queue import BatchQueue, Limits
from salver.runtime.batch_settings import Settings

Cost = Callable[[int], float]


class Chooser(Protocol):
    """What chooses limits; `AdaptiveBatching` is one."""

    def limits(self, settings: Settings) -> Limits: ...
    def batch_ended(self, arrivals: list[float], started: float, ended: float, waiting: list[float]) -> None: ...


class Fixed:
    """Always the same limits."""

    def __init__(self, max_size: int, wait_s: float) -> None:
        self._limits = Limits(max_size, wait_s)

    def limits(self, settings: Settings) -> Limits:
        return self._limits

    def batch_ended(self, *_: Any) -> None:
        pass


@dataclass(eq=False)
class Asked:
    """A call in the simulation."""

    arrived: float
    client: int | None
    shape: Any = None
    deferred: bool = False
    first: Any = None


@dataclass
class Outcome:
    """What came of it, after the time that was given for learning.

    Attributes:
        rate: Answers a second.
        latencies: Seconds from arrival to answer, sorted.
    """

    rate: float
    latencies: list[float]
    sizes: list[int] = field(default_factory=list)

    @property
    def p95(self) -> float:
        return self.latencies[int(len(self.latencies) * 0.95)] if self.latencies else 0.0


@dataclass(frozen=True)
class Load:
    """Who calls.

    Attributes:
        clients: So many, each of which calls again some time after its answer.
        away_s: That time, on average.
        per_second: Calls that come whatever is answered.
        noise: Standard deviation of a batch's cost, as a share of it.
    """

    clients: int = 0
    away_s: float = 0.001
    per_second: float = 0.0
    noise: float = 0.03


class Simulation:
    """One handler that runs one batch at a time.

    Args:
        cost: Seconds that a batch takes, by its size; may be changed while it runs.
    """

    def __init__(self, cost: Cost, load: Load, chooser: Chooser, settings: Settings, seed: int = 1) -> None:
        self.cost = cost
        self.load = load
        self._chooser = chooser
        self._settings = settings
        self._random = random.Random(seed)
        self._queue: BatchQueue[Asked] = BatchQueue(lambda: chooser.limits(settings), self._never)
        self._events: list[tuple[float, int, str, Any]] = []
        self._order = count()
        self._now = 0.0
        self._running = False
        self._answers: list[tuple[float, float]] = []
        self._sizes: list[tuple[float, int]] = []
        self._clients = 0
        self.add_clients(load.clients)
        if load.per_second:
            self._push(self._gap(), "stranger", None)

    def add_clients(self, number: int) -> None:
        """Let more clients call."""
        for _ in range(number):
            self._push(self._now + self._away(), "client", self._clients)
            self._clients += 1

    def remove_clients(self, number: int) -> None:
        """Let some clients call no more after their next answers."""
        self._clients -= number

    def run(self, seconds: float, skip_s: float = 0.0) -> Outcome:
        """Go on for some time; the beginning of it may be left out of the outcome."""
        begin, end = self._now + skip_s, self._now + seconds
        while self._events and self._events[0][0] <= end:
            self._now, _, kind, what = heapq.heappop(self._events)
            if kind == "client":
                self._arrive(Asked(self._now, what))
            elif kind == "stranger":
                self._arrive(Asked(self._now, None))
                self._push(self._now + self._gap(), "stranger", None)
            elif kind == "ended":
                self._end(*what)
            self._start()
        self._now = end
        latencies = sorted(answered - arrived for arrived, answered in self._answers if answered > begin)
        sizes = [size for ended, size in self._sizes if ended > begin]
        return Outcome(len(latencies) / (end - begin), latencies, sizes)

    def _arrive(self, asked: Asked) -> None:
        if self._queue.add(asked) and not self._running and (due := self._queue.due()) is not None:
            self._push(max(due, self._now), "look", None)

    def _start(self) -> None:
        if self._running:
            return
        batch = self._queue.take(self._now + 1e-9)
        if not batch:
            return
        self._running = True
        takes_s = self.cost(len(batch)) * max(0.2, self._random.gauss(1, self.load.noise))
        self._push(self._now + takes_s, "ended", (batch, self._now))

    def _end(self, batch: list[Asked], started: float) -> None:
        self._running = False
        self._sizes.append((self._now, len(batch)))
        for asked in batch:
            self._answers.append((asked.arrived, self._now))
            if asked.client is not None and asked.client < self._clients:
                self._push(self._now + self._away(), "client", asked.client)
        waiting = self._queue.arrivals(512)
        self._chooser.batch_ended([asked.arrived for asked in batch], started, self._now, waiting)
        self._queue.refresh()
        if (due := self._queue.due()) is not None:
            self._push(max(due, self._now), "look", None)

    def _away(self) -> float:
        # Half of it for certain, as for a client that has something to do between its calls.
        return self.load.away_s * (0.5 + self._random.expovariate(2))

    def _gap(self) -> float:
        return self._random.expovariate(self.load.per_second)

    def _push(self, when: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), kind, what))

    def _never(self, asked: Asked, error: BaseException) -> None:
        raise AssertionError(f"{asked} was refused") from error
