"""Which replica gets a request for a model, and which request a free replica takes."""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.handle.multiplex_affinity import LOOK_AHEAD, MAX_UNCONFIRMED, ModelAffinity
from salver.handle.outgoing import Hints
from tests.unit.handle.doubles import Request


class Replica:
    """A replica as its caller sees it."""

    def __init__(self, limit: int = 2, busy: int = 0, others: int = 0) -> None:
        self.limit = limit
        self.in_flight: list[Any] = [None] * busy
        self.others = others

    @property
    def has_room(self) -> bool:
        return len(self.in_flight) < self.limit


def affinity(*held: tuple[Replica, str]) -> ModelAffinity[Replica]:
    """Return what knows these models, one letter each, of these replicas."""
    known: ModelAffinity[Replica] = ModelAffinity(lambda: 0.0)
    for replica, models in held:
        known.told(replica, tuple(models))
    return known


def request(model_id: str, order: int) -> Request:
    made = Request(model_id)
    made.order, made.hints = order, Hints(model_id)
    return made


def test_a_replica_that_holds_the_model_is_chosen() -> None:
    a, b = Replica(), Replica(busy=1)
    assert affinity((a, "xy"), (b, "z")).choose("z", [a, b]) is b


def test_of_those_that_hold_it_the_least_loaded_is_chosen() -> None:
    a, b, c = Replica(busy=1), Replica(others=0), Replica(others=3)
    assert affinity((a, "x"), (b, "x"), (c, "x")).choose("x", [a, b, c]) is b


def test_a_model_that_nobody_holds_goes_where_the_fewest_are() -> None:
    a, b = Replica(), Replica(busy=1)
    assert affinity((a, "xy"), (b, "z")).choose("new", [a, b]) is b


def test_of_equals_the_less_loaded_loads_it() -> None:
    a, b = Replica(busy=1), Replica()
    assert affinity((a, "x"), (b, "y")).choose("new", [a, b]) is b


def test_where_all_that_hold_it_are_full_another_loads_it_at_once() -> None:
    full, a, b = Replica(1, busy=1), Replica(), Replica()
    assert affinity((full, "x"), (a, "yz"), (b, "y")).choose("x", [full, a, b]) is b


def test_where_all_are_full_there_is_no_choice() -> None:
    full = Replica(1, busy=1)
    assert affinity((full, "x")).choose("x", [full]) is None
    assert affinity().choose("x", []) is None


def test_callers_that_know_nothing_do_not_all_begin_with_the_same_replica() -> None:
    replicas = [Replica() for _ in range(4)]
    firsts = {id(ModelAffinity[Replica](Random(seed).random).choose("x", replicas)) for seed in range(50)}
    assert len(firsts) == 4


def test_a_replica_that_was_sent_a_model_holds_it_before_it_says_so() -> None:
    a, b = Replica(), Replica()
    known = affinity()
    known.sent(b, "x")
    assert known.choose("x", [a, b]) is b


def test_a_report_that_was_under_way_does_not_undo_what_was_sent() -> None:
    a = Replica()
    known = affinity((a, "v"))
    known.sent(a, "x")
    known.told(a, ("v", "w"))
    assert known.holds(a, "x")
    known.told(a, ("w", "y"))
    assert not known.holds(a, "x")


def test_a_report_confirms_what_was_sent() -> None:
    a = Replica()
    known = affinity()
    known.sent(a, "x")
    known.told(a, ("x",))
    known.told(a, ("x", "y"))
    known.told(a, ("x", "z"))
    assert known.holds(a, "x")


def test_a_model_that_a_replica_no_longer_names_is_not_there() -> None:
    a = Replica()
    known = affinity((a, "xy"))
    known.told(a, ("y",))
    assert (known.holds(a, "x"), known.holds(a, "y")) == (False, True)


def test_the_same_report_again_says_nothing_new() -> None:
    a = Replica()
    known = affinity((a, "v"))
    known.sent(a, "x")
    for _ in range(5):
        known.told(a, ("v",))
    assert known.holds(a, "x")


def test_a_replica_that_refused_the_request_does_not_hold_its_model() -> None:
    a = Replica()
    known = affinity((a, "y"))
    known.sent(a, "x")
    for each in "xyz":
        known.refused(a, each)
    assert (known.holds(a, "x"), known.holds(a, "y")) == (False, True)
    known.refused(Replica(), "x")


def test_a_replica_that_is_gone_holds_nothing() -> None:
    a = Replica()
    known = affinity((a, "x"))
    known.sent(a, "y")
    known.gone(a)
    known.gone(a)
    assert not known.holds(a, "x")
    assert not known.holds(a, "y")
    assert (known._known, known._holders) == ({}, {})


def test_clients_cannot_fill_the_memory_with_names_of_models() -> None:
    a = Replica()
    known = affinity()
    for number in range(10_000):
        known.sent(a, str(number))
    assert len(known._holders) == MAX_UNCONFIRMED
    assert known.holds(a, "9999")


def test_a_free_replica_takes_the_oldest_request_for_a_model_that_it_holds() -> None:
    a = Replica()
    assert affinity((a, "y")).pick(a, [request(each, order) for order, each in enumerate("xxyy")]) == 2


def test_a_free_replica_that_holds_none_of_them_takes_the_oldest() -> None:
    a = Replica()
    assert affinity((a, "z")).pick(a, [request(each, order) for order, each in enumerate("xxyy")]) == 0


def test_a_request_for_no_model_is_at_home_everywhere() -> None:
    a = Replica()
    assert affinity((a, "y")).pick(a, [request("x", 1), request("", 2), request("y", 3)]) == 1


def test_requests_that_nobody_wants_are_not_taken_and_do_not_count() -> None:
    a = Replica()
    waiting = [request("x", order) for order in range(2 * LOOK_AHEAD)]
    for each in waiting[:-1]:
        each.abandoned = True
    assert affinity((a, "y")).pick(a, waiting) == 2 * LOOK_AHEAD - 1


def test_it_does_not_look_further_than_a_few_requests_ahead() -> None:
    a = Replica()
    waiting = [request("x", order) for order in range(LOOK_AHEAD)] + [request("y", LOOK_AHEAD)]
    assert affinity((a, "y")).pick(a, waiting) == 0


def test_no_request_is_passed_for_ever() -> None:
    a = Replica()
    known = affinity((a, "y"))
    waiting = deque([request("x", 1)])
    taken: list[str] = []
    for order in range(2, 2 + LOOK_AHEAD + 1):
        waiting.append(request("y", order))
        index = known.pick(a, waiting)
        taken.append(waiting[index].hints.multiplexed_model_id)
        del waiting[index]
    assert taken == ["y"] * LOOK_AHEAD + ["x"]


@given(data=st.data())
def test_holders_are_those_of_the_last_reports_and_of_what_was_sent_since(data: st.DataObject) -> None:
    replicas = [Replica(), Replica()]
    known = affinity()
    told: dict[int, set[str]] = {0: set(), 1: set()}
    sent: dict[int, set[str]] = {0: set(), 1: set()}
    for _ in range(data.draw(st.integers(0, 30))):
        which = data.draw(st.integers(0, 1))
        if data.draw(st.booleans()):
            report = set(data.draw(st.frozensets(st.sampled_from("abcd"))))
            known.told(replicas[which], tuple(sorted(report)))
            told[which] = report
        else:
            model_id = data.draw(st.sampled_from("abcd"))
            known.sent(replicas[which], model_id)
            sent[which].add(model_id)
        for index, replica in enumerate(replicas):
            holds = {each for each in "abcd" if known.holds(replica, each)}
            assert told[index] <= holds <= told[index] | sent[index]


class Fleet:
    """Replicas that serve, load and forget models in simulated time; what they hold is told after a while.

    Attributes:
        loads: How often a model was loaded, by replica.
        requests: How many requests were served.
    """

    SERVE_S, LOAD_S, REPORT_S = 0.01, 0.2, 0.25

    def __init__(self, replicas: int, capacity: int, limit: int, seed: int) -> None:
        self.random = Random(seed)
        self.affinity: ModelAffinity[Replica] = ModelAffinity(self.random.random)
        self.replicas = [Replica(limit) for _ in range(replicas)]
        self.caches: list[OrderedDict[str, None]] = [OrderedDict() for _ in range(replicas)]
        self.capacity = capacity
        self.waiting: deque[Request] = deque()
        self.loads: list[list[str]] = [[] for _ in range(replicas)]
        self.requests = 0
        self._events: list[tuple[float, int, str, Any]] = []
        self._number = 0

    def run(self, arrivals: list[tuple[float, str]]) -> None:
        """Serve requests that come at these times for these models."""
        for when, model_id in arrivals:
            self._later(when, "arrive", model_id)
        while self._events:
            now, _, what, subject = heappop(self._events)
            getattr(self, f"_{what}")(now, subject)
            if self.waiting:
                assert not any(each.has_room for each in self.replicas), "a replica is idle while requests wait"

    def _later(self, when: float, what: str, subject: Any) -> None:
        self._number += 1
        heappush(self._events, (when, self._number, what, subject))

    def _arrive(self, now: float, model_id: str) -> None:
        self.requests += 1
        replica = None if self.waiting else self.affinity.choose(model_id, self.replicas)
        if replica is None:
            self.waiting.append(request(model_id, self.requests))
        else:
            self._serve(now, replica, model_id)

    def _serve(self, now: float, replica: Replica, model_id: str) -> None:
        self.affinity.sent(replica, model_id)
        replica.in_flight.append(None)
        which = self.replicas.index(replica)
        cache = self.caches[which]
        took = self.SERVE_S
        if model_id not in cache:
            took += self.LOAD_S
            self.loads[which].append(model_id)
            if len(cache) == self.capacity:
                cache.popitem(last=False)
            cache[model_id] = None
            self._later(now + self.REPORT_S, "tell", (replica, tuple(sorted(cache))))
        cache.move_to_end(model_id)
        self._later(now + took, "finish", replica)

    def _tell(self, now: float, report: tuple[Replica, tuple[str, ...]]) -> None:
        self.affinity.told(*report)

    def _finish(self, now: float, replica: Replica) -> None:
        replica.in_flight.pop()
        if self.waiting:
            index = self.affinity.pick(replica, self.waiting)
            model_id = self.waiting[index].hints.multiplexed_model_id
            del self.waiting[index]
            self._serve(now, replica, model_id)


def hit_rate(fleet: Fleet, loads_before: int, requests_before: int) -> float:
    loads = sum(len(each) for each in fleet.loads) - loads_before
    return 1 - loads / (fleet.requests - requests_before)


def arrivals(seed: int, number: int, models: int, per_s: float, start: float = 0.0) -> list[tuple[float, str]]:
    random, now, drawn = Random(seed), start, []
    for _ in range(number):
        now += random.expovariate(per_s)
        drawn.append((now, f"m{min(int(random.paretovariate(0.7)) - 1, random.randrange(models))}"))
    return drawn


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_models_stay_where_they_are_although_no_replica_holds_them_all(seed: int) -> None:
    fleet = Fleet(replicas=3, capacity=6, limit=5, seed=seed)
    fleet.run(arrivals(seed, 500, 12, per_s=150))
    loads = sum(len(each) for each in fleet.loads)
    fleet.run(arrivals(seed + 1, 2000, 12, per_s=150))
    assert hit_rate(fleet, loads, 500) >= 0.95


def test_a_popular_model_spreads_over_the_replicas() -> None:
    fleet = Fleet(replicas=3, capacity=2, limit=2, seed=1)
    fleet.run([(0.001 * number, "hot") for number in range(1000)])
    assert fleet.loads == [["hot"]] * 3


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    replicas=st.integers(1, 4),
    capacity=st.integers(1, 3),
    limit=st.integers(1, 3),
    per_s=st.sampled_from([5.0, 50.0, 500.0]),
)
def test_every_request_is_served_and_no_replica_idle_while_any_wait(
    seed: int, replicas: int, capacity: int, limit: int, per_s: float
) -> None:
    fleet = Fleet(replicas, capacity, limit, seed)
    fleet.run(arrivals(seed, 200, 8, per_s))
    assert not fleet.waiting
    assert not any(each.in_flight for each in fleet.replicas)


@pytest.mark.parametrize("seed", range(5))
def test_when_all_is_full_free_replicas_take_what_they_hold(seed: int) -> None:
    fleet = Fleet(replicas=2, capacity=2, limit=1, seed=seed)
    fleet.run(arrivals(seed, 1000, 4, per_s=1000))
    assert hit_rate(fleet, 0, 0) >= 0.9
