"""Callers and replicas that hypothesis drives: no request is lost or run twice, no replica idle while requests wait."""

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from salver.handle.outgoing import Hints
from salver.handle.policies import POLICY_NAMES
from salver.handle.policies.locality import Place
from salver.handle.request_router.api import PendingRequest, RunningReplica
from salver.handle.request_router.custom import Groups
from salver.handle.router import Router
from salver.handle.selection import Reservation
from salver.schema.application import RouterSpec
from salver.transport.wire import CallHead
from tests.unit.handle.doubles import NOWHERE, USER_CODE, Choose, Net, Replica, Request, UserCode

some = st.integers(0, 1000)
HEAD = CallHead("__call__", "request", "/shop", "shop", "")


class Caller:
    """A router and what it was given."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.requests: list[Request] = []
        self.reservations: list[Reservation] = []

    def slots_at(self, replica: Replica) -> int:
        """Return how many slots are kept for it at a replica."""
        return sum(_is_kept(each) and each.granted.result().entry.replica == replica.id for each in self.reservations)


def _is_kept(reservation: Reservation) -> bool:
    granted = reservation.granted
    return granted.done() and not granted.exception() and not reservation._used and not granted.result().closed


class Machine(RuleBasedStateMachine):
    """Every step is one thing that happens: a frame arrives, a request ends, a replica dies, a snapshot comes."""

    routing: RouterSpec | None = None
    place = NOWHERE
    choose: Choose | None = None

    @initialize(callers=st.integers(1, 3), limits=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=some)
    def begin(self, callers: int, limits: list[int], seed: int) -> None:
        self.net = Net()
        self.loop = asyncio.new_event_loop()
        self.everyone: list[Replica] = []
        self.highest: dict[str, int] = {}
        for limit in limits:
            self.start_replica(limit)
        self.callers = [Caller(self.router(Random(seed + number))) for number in range(callers)]

    def router(self, random: Random) -> Router:
        choose = type(self).choose
        return self.net.router(random, self.place, None if choose is None else UserCode(choose))

    def start_replica(self, limit: int) -> None:
        number = len(self.everyone)
        replica = self.net.replica(f"r{number}", limit, f"node{number % 3}")
        self.everyone.append(replica)
        self.highest[replica.id.unique_id] = limit

    @property
    def alive(self) -> list[Replica]:
        return [each for each in self.everyone if each.alive]

    @rule(
        who=some,
        idempotent=st.booleans(),
        number=st.integers(1, 4),
        model_id=st.sampled_from(["", "x", "y"]),
        urgency=st.integers(0, 7),
    )
    def submit(self, who: int, idempotent: bool, number: int, model_id: str, urgency: int) -> None:
        caller = self.callers[who % len(self.callers)]
        for _ in range(number):
            hints = Hints(model_id, session_id=str(who % 3), prefer_local=who % 2 == 0, urgency=urgency)
            caller.router.route(self.new_request(caller, hints, idempotent=idempotent))

    def new_request(self, caller: Caller, hints: Hints, *, idempotent: bool = False) -> Request:
        name = f"{self.callers.index(caller)}.{len(caller.requests)}"
        request = Request(name, idempotent=idempotent, hints=hints, args=("hello",))
        caller.requests.append(request)
        return request

    @rule(who=some)
    def reserve(self, who: int) -> None:
        caller = self.callers[who % len(self.callers)]
        reservation = Reservation(caller.router, HEAD, self.loop.create_future())
        caller.reservations.append(reservation)
        caller.router.route(reservation)

    @rule(who=some, which=some, release=st.booleans())
    def use_or_release(self, who: int, which: int, release: bool) -> None:
        """The code that chose a replica dispatches a call, or leaves its context at any moment."""
        caller = self.callers[who % len(self.callers)]
        if caller.reservations:
            reservation = caller.reservations[which % len(caller.reservations)]
            if release:
                reservation.release()
            elif reservation.granted.done() and not reservation.granted.exception():
                reservation.route(self.new_request(caller, Hints()))

    @rule(which=some, frames=st.integers(1, 3))
    def carry(self, which: int, frames: int) -> None:
        busy = [end for end in self.net.ends if end.under_way or (end.closed and not end.broken)]
        if busy:
            for _ in range(frames):
                busy[which % len(busy)].carry()

    @rule(which=some)
    def finish(self, which: int) -> None:
        running = [each for each in self.alive if each.running]
        if running:
            replica = running[which % len(running)]
            replica.finish(which % len(replica.running))

    @rule(who=some, which=some)
    def cancel(self, who: int, which: int) -> None:
        caller = self.callers[who % len(self.callers)]
        if caller.requests:
            caller.router.cancel(caller.requests[which % len(caller.requests)])

    @rule(who=some, by_priority=st.booleans())
    def tell(self, who: int, by_priority: bool) -> None:
        news = self.net.snapshot(router=self.routing, request_priorities=by_priority)
        self.callers[who % len(self.callers)].router.update(news)

    @precondition(lambda self: self.net.tasks.pending)
    @rule()
    def go_on_a_little(self) -> None:
        self.net.tasks.step()

    @rule()
    def dial(self) -> None:
        self.net.tasks.go_on()

    @rule(slowly=st.booleans())
    def dial_from_now_on(self, slowly: bool) -> None:
        self.net.tasks.go_on()
        self.net.tasks.at_once = not slowly

    @precondition(lambda self: len(self.alive) < 3)
    @rule(limit=st.integers(1, 3))
    def start(self, limit: int) -> None:
        self.start_replica(limit)

    @rule(which=some, really=st.integers(0, 3))
    def kill(self, which: int, really: int) -> None:
        if self.alive and really == 0:
            self.net.kill(self.alive[which % len(self.alive)])

    @rule(which=some, really=st.integers(0, 3))
    def leave(self, which: int, really: int) -> None:
        """A replica is retired: it drains, and callers learn of it sooner or later."""
        if self.alive and really == 0:
            replica = self.alive[which % len(self.alive)]
            replica.retired = True
            replica.admission.close()

    @rule(which=some, really=st.integers(0, 3))
    def cut(self, which: int, really: int) -> None:
        if self.net.ends and really == 0:
            self.net.ends[which % len(self.net.ends)].cut()

    @rule(which=some, limit=st.integers(1, 4))
    def change_limit(self, which: int, limit: int) -> None:
        if self.alive:
            replica = self.alive[which % len(self.alive)]
            replica.limit = limit
            replica.admission.change_limit(limit)
            name = replica.id.unique_id
            self.highest[name] = max(limit, self.highest[name])

    @rule()
    def quiesce(self) -> None:
        """Dial and carry all that is under way: then whoever waits, waits for full replicas."""
        self.net.settle()
        while self.net.tasks.pending:
            self.net.tasks.go_on()
            self.net.settle()
        for caller in self.callers:
            if caller.router.num_waiting:
                for channel in caller.router._choices:
                    replica = self.net.replicas[channel.entry.address]
                    # A caller that was not told of a higher limit yet keeps to the lower one.
                    expected = 0 if replica.retired else min(replica.admission.limit, channel.limit)
                    kept = sum(each.slots_at(replica) for each in self.callers)
                    assert len(replica.running) + kept >= expected, f"{replica.id} is idle while requests wait"

    @invariant()
    def limits_hold(self) -> None:
        for replica in getattr(self, "everyone", []):
            assert replica.most <= self.highest[replica.id.unique_id]

    @invariant()
    def the_queue_is_counted(self) -> None:
        for caller in getattr(self, "callers", []):
            waiting: Any = [each for each in caller.router._waiting if not each.abandoned]
            assert caller.router.num_waiting == len(waiting)

    def teardown(self) -> None:
        """Let everything end well: whoever was not cancelled has an answer, and nothing stays held."""
        if hasattr(self, "net"):
            try:
                self.end_well()
            finally:
                self.net.tasks.forget()
                self.loop.close()

    def end_well(self) -> None:
        self.net.tasks.at_once = True
        self.net.tasks.go_on()
        for caller in self.callers:
            for reservation in caller.reservations:
                reservation.release()
        self.net.settle()
        self.start_replica(1)
        for caller in self.callers:
            caller.router.update(self.net.snapshot(router=self.routing))
        self.net.run_out()
        for caller in self.callers:
            assert [each for each in caller.requests if each.outcome == "waits" and not each.abandoned] == []
            assert caller.router.num_waiting == 0
        for replica in self.alive:
            assert replica.admission.taken == 0
            if replica.retired:
                assert self.connections_to(replica) == []

    def connections_to(self, replica: Replica) -> list[Any]:
        return [end for end in self.net.ends if not end.broken and getattr(end.sink, "replica", None) is replica]


def in_any_order(replicas: list[RunningReplica], request: PendingRequest) -> Groups:
    """Rank all replicas, in an order of the request's own."""
    shuffled = Random(request.metadata.request_id).sample(replicas, len(replicas))
    return [[each.replica_id] for each in shuffled]


def just_one(replicas: list[RunningReplica], request: PendingRequest) -> Groups:
    """Name one replica, drawn by chance."""
    return in_any_order(replicas, request)[:1]


def sometimes_nothing(replicas: list[RunningReplica], request: PendingRequest) -> Groups | None:
    """Fail, or give no answer, or a good one."""
    draw = Random(f"{request.metadata.request_id}{len(replicas)}").random()
    if draw < 0.4:
        return None if draw < 0.2 else []
    return just_one(replicas, request)


MACHINES = [
    Machine,
    *(
        type(name, (Machine,), {"routing": RouterSpec(policy=name), "place": Place("node1")})
        for name in sorted(POLICY_NAMES)
    ),
    *(
        type(choose.__name__, (Machine,), {"routing": USER_CODE, "choose": choose})
        for choose in (in_any_order, just_one, sometimes_nothing)
    ),
]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda each: each.__name__)
def test_no_request_is_lost_and_no_replica_idle_while_requests_wait(machine: type[Machine]) -> None:
    many = settings(max_examples=100 if machine is Machine else 40, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(machine, settings=many)
