"""Admission: the limit is strict, a free slot is offered to the one who waits longest, nothing is lost."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from salver.replica.admission import Admission


class Offers(list[str]):
    """Remembers to whom slots were offered."""


def admission(limit: int) -> tuple[Admission[str], Offers]:
    """Return an admission and its offers."""
    offers = Offers()
    return Admission(limit, offers.append), offers


def test_requests_enter_up_to_the_limit() -> None:
    gate, offers = admission(2)
    assert [gate.enter("a", held=False) for _ in range(3)] == [True, True, False]
    assert (gate.running, gate.taken, offers) == (2, 2, [])


def test_a_free_slot_is_held_for_the_one_who_was_refused_first() -> None:
    gate, offers = admission(1)
    gate.enter("a", held=False)
    for caller in "bcb":
        gate.enter(caller, held=False)
    gate.leave()
    assert offers == ["b"]
    assert (gate.running, gate.taken) == (0, 1)


def test_nobody_else_takes_a_held_slot() -> None:
    gate, _ = admission(1)
    gate.enter("a", held=False)
    gate.enter("b", held=False)
    gate.leave()
    assert not gate.enter("c", held=False)
    assert not gate.enter("c", held=True)
    assert gate.enter("b", held=True)
    assert gate.running == 1


def test_a_slot_that_is_handed_back_goes_to_the_next() -> None:
    gate, offers = admission(1)
    gate.enter("a", held=False)
    gate.enter("b", held=False)
    gate.enter("c", held=False)
    gate.leave()
    gate.give_up("b")
    assert offers == ["b", "c"]
    gate.give_up("c")
    assert gate.taken == 0


def test_a_slot_that_nobody_holds_cannot_be_handed_back() -> None:
    gate, _ = admission(1)
    gate.enter("a", held=False)
    gate.give_up("a")
    assert gate.taken == 1


def test_a_caller_that_is_gone_gives_back_its_slot_and_its_place() -> None:
    gate, offers = admission(1)
    gate.enter("a", held=False)
    for caller in "bcd":
        gate.enter(caller, held=False)
    gate.leave()
    gate.forget("c")
    gate.forget("b")
    assert offers == ["b", "d"]


def test_who_waits_while_there_is_room_is_offered_it_at_once() -> None:
    gate, offers = admission(1)
    assert gate.wait("a")
    assert offers == ["a"]
    assert not gate.wait("b")


def test_a_higher_limit_is_offered_to_those_who_wait() -> None:
    gate, offers = admission(1)
    gate.enter("a", held=False)
    gate.enter("b", held=False)
    gate.enter("c", held=False)
    gate.change_limit(3)
    assert offers == ["b", "c"]


def test_a_lower_limit_interrupts_nothing_and_lets_nobody_in() -> None:
    gate, _ = admission(3)
    for _ in range(3):
        gate.enter("a", held=False)
    gate.change_limit(1)
    gate.leave()
    assert not gate.enter("b", held=False)
    assert gate.running == 2


def test_a_closed_gate_lets_in_only_who_holds_a_slot() -> None:
    gate, offers = admission(1)
    gate.enter("a", held=False)
    gate.enter("b", held=False)
    gate.enter("c", held=False)
    gate.leave()
    gate.close()
    assert not gate.enter("c", held=False)
    assert gate.enter("b", held=True)
    gate.leave()
    assert offers == ["b"]
    assert gate.taken == 0


class Machine(RuleBasedStateMachine):
    """Callers that behave as they like; the model keeps its own line and its own counts."""

    callers = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.gate: Admission[str] = Admission(2, self.offered)
        self.line: list[str] = []
        self.held: Counter[str] = Counter()
        self.running = 0
        self.most_allowed = 2

    def offered(self, caller: str) -> None:
        assert self.line, f"{caller} was offered a slot that it does not wait for"
        assert caller == self.line.pop(0), "who waits longest comes first"
        self.held[caller] += 1

    def refused(self, caller: str) -> None:
        if not self.gate.closed and caller not in self.line:
            self.line.append(caller)

    @rule(caller=callers, held=st.booleans())
    def enter(self, caller: str, held: bool) -> None:
        uses_held = held and self.held[caller] > 0
        had_room = not self.gate.closed and self.running + self.held.total() < self.gate.limit
        entered = self.gate.enter(caller, held=held)
        assert entered == (uses_held or had_room)
        if entered:
            self.running += 1
            self.held[caller] -= uses_held
        else:
            self.refused(caller)

    @precondition(lambda self: self.running)
    @rule()
    def leave(self) -> None:
        self.running -= 1
        self.gate.leave()

    @rule(caller=callers)
    def wait(self, caller: str) -> None:
        self.refused(caller)
        offered = self.gate.wait(caller)
        assert offered == (not self.gate.closed and caller not in self.line)

    @rule(caller=callers)
    def give_up(self, caller: str) -> None:
        self.held[caller] -= self.held[caller] > 0
        self.gate.give_up(caller)

    @rule(caller=callers)
    def forget(self, caller: str) -> None:
        self.held[caller] = 0
        if caller in self.line:
            self.line.remove(caller)
        self.gate.forget(caller)

    @rule(limit=st.integers(1, 4))
    def change_limit(self, limit: int) -> None:
        self.gate.change_limit(limit)

    @precondition(lambda self: not self.gate.closed)
    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0:
            self.line.clear()
            self.gate.close()

    def teardown(self) -> None:
        """End everything: nothing stays taken, whatever has happened."""
        for caller in "abc":
            self.forget(caller=caller)
        while self.running:
            self.leave()
        assert self.gate.taken == 0

    @invariant()
    def counts_agree(self) -> None:
        assert self.gate.running == self.running
        assert self.gate.taken == self.running + self.held.total()

    @invariant()
    def the_limit_holds(self) -> None:
        # What was let in under a higher limit may stay; nothing comes on top.
        self.most_allowed = max(self.gate.limit, min(self.most_allowed, self.gate.taken))
        assert self.gate.taken <= self.most_allowed

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        assert not self.line or self.gate.taken >= self.gate.limit


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_a_reserved_slot_is_held_until_it_is_used_or_handed_back() -> None:
    offered: list[str] = []
    admission: Admission[str] = Admission(2, offered.append)
    assert admission.reserve("a", held=False)
    assert admission.enter("b", held=False)
    assert (admission.running, admission.taken) == (1, 2)
    assert not admission.reserve("c", held=False), "a reservation is refused as a request is"
    admission.give_up("a")
    assert offered == ["c"]
    assert admission.reserve("c", held=True), "a slot that is held for the caller becomes the reservation"
    assert admission.taken == 2
    assert admission.enter("c", held=True)
    assert admission.running == 2


def test_a_caller_that_dies_gives_its_reservations_back() -> None:
    offered: list[str] = []
    admission: Admission[str] = Admission(2, offered.append)
    assert admission.reserve("a", held=False)
    assert admission.reserve("a", held=False)
    assert not admission.enter("b", held=False)
    admission.forget("a")
    assert offered == ["b"]


def test_a_closed_replica_reserves_nothing_but_lets_reservations_in() -> None:
    admission: Admission[str] = Admission(2, lambda _caller: None)
    assert admission.reserve("a", held=False)
    admission.close()
    assert not admission.reserve("b", held=False)
    assert admission.enter("a", held=True)
