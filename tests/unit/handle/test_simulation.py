"""Callers and replicas that hypothesis drives: no request is lost or run twice, no replica idle while requests wait."""

from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from salver.handle.outgoing import Hints
from salver.handle.router import Router
from tests.unit.handle.doubles import Net, Replica, Request

some = st.integers(0, 1000)


class Caller:
    """A router and what it was given."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.requests: list[Request] = []


class Machine(RuleBasedStateMachine):
    """Every step is one thing that happens: a frame arrives, a request ends, a replica dies, a snapshot comes."""

    @initialize(callers=st.integers(1, 3), limits=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=some)
    def begin(self, callers: int, limits: list[int], seed: int) -> None:
        self.net = Net()
        self.everyone: list[Replica] = []
        self.highest: dict[str, int] = {}
        for limit in limits:
            self.start_replica(limit)
        self.callers = [Caller(self.net.router(Random(seed + number))) for number in range(callers)]

    def start_replica(self, limit: int) -> None:
        replica = self.net.replica(f"r{len(self.everyone)}", limit)
        self.everyone.append(replica)
        self.highest[replica.id.unique_id] = limit

    @property
    def alive(self) -> list[Replica]:
        return [each for each in self.everyone if each.alive]

    @rule(who=some, idempotent=st.booleans(), number=st.integers(1, 4), model_id=st.sampled_from(["", "x", "y"]))
    def submit(self, who: int, idempotent: bool, number: int, model_id: str) -> None:
        caller = self.callers[who % len(self.callers)]
        for _ in range(number):
            request = Request(f"{who}.{len(caller.requests)}", idempotent=idempotent)
            request.hints = Hints(model_id)
            caller.requests.append(request)
            caller.router.route(request)

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

    @rule(who=some)
    def tell(self, who: int) -> None:
        self.callers[who % len(self.callers)].router.update(self.net.snapshot())

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
                    assert len(replica.running) >= expected, f"{replica.id} is idle while requests wait"

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

    def end_well(self) -> None:
        self.net.tasks.at_once = True
        self.net.tasks.go_on()
        self.net.settle()
        self.start_replica(1)
        for caller in self.callers:
            caller.router.update(self.net.snapshot())
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


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
