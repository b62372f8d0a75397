"""Counting resources: nothing but CPUs is given twice, shares are packed, what is given back is free again."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from salver.engine.resources import Ledger
from salver.schema.errors import ResourcesUnavailable


def gpus_of(ledger: Ledger, holder: str, amount: float) -> dict[int, float]:
    """Take GPUs and return which."""
    return dict(ledger.take(holder, {"GPU": amount}).gpus)


def test_what_is_taken_is_not_free_and_what_is_given_back_is() -> None:
    ledger = Ledger({"CPU": 2, "memory": 1e9, "tpu": 1})
    ledger.take("a", {"CPU": 0.5, "memory": 4e8, "tpu": 0.25})
    assert ledger.free == {"CPU": 1.5, "memory": 6e8, "tpu": 0.75}
    ledger.give_back("a")
    ledger.give_back("a")
    ledger.give_back("unknown")
    assert ledger.free == {"CPU": 2, "memory": 1e9, "tpu": 1}


def test_tenths_add_up_to_a_whole() -> None:
    ledger = Ledger({"tpu": 1})
    for number in range(10):
        ledger.take(str(number), {"tpu": 0.1})
    assert ledger.free == {"tpu": 0}
    with pytest.raises(ResourcesUnavailable):
        ledger.take("one too many", {"tpu": 0.1})


def test_crumbs_are_not_for_nothing() -> None:
    ledger = Ledger({"tpu": 0.001})
    for number in range(10):
        ledger.take(str(number), {"tpu": 0.00004})
    with pytest.raises(ResourcesUnavailable):
        ledger.take("one too many", {"tpu": 0.00004})


def test_what_is_short_is_named() -> None:
    ledger = Ledger({"CPU": 4, "memory": 100})
    ledger.take("a", {"memory": 60})
    with pytest.raises(ResourcesUnavailable) as caught:
        ledger.take("shop#model#1", {"CPU": 1, "memory": 50})
    assert str(caught.value) == 'shop#model#1 needs {"CPU": 1, "memory": 50}, and memory is short: 40 of 100 free.'
    assert ledger.free == {"CPU": 4, "memory": 40}


@pytest.mark.parametrize("wanted", [{"GPU": 1}, {"tpu": 0.5}], ids=["no GPU", "unknown resource"])
def test_what_the_node_does_not_have_is_not_given(wanted: dict[str, float]) -> None:
    with pytest.raises(ResourcesUnavailable):
        Ledger({"CPU": 4}).take("a", wanted)


def test_asking_for_nothing_of_a_resource_asks_for_nothing() -> None:
    assert Ledger({}).take("a", {"GPU": 0, "tpu": 0.0}).amounts == {}


def test_a_holder_takes_once() -> None:
    ledger = Ledger({"tpu": 2})
    ledger.take("a", {"tpu": 1})
    with pytest.raises(ValueError, match="a holds resources already"):
        ledger.take("a", {"tpu": 1})


def test_cpus_may_be_overcommitted() -> None:
    ledger = Ledger({"CPU": 1})
    ledger.take("a", {"CPU": 1})
    assert not ledger.cpus_overcommitted
    ledger.take("b", {"CPU": 2})
    assert ledger.cpus_overcommitted
    assert ledger.free == {"CPU": -2}


def test_strict_cpus_are_counted() -> None:
    ledger = Ledger({"CPU": 1}, strict_cpus=True)
    ledger.take("a", {"CPU": 1})
    with pytest.raises(ResourcesUnavailable, match="CPU is short"):
        ledger.take("b", {"CPU": 0.1})


def test_whole_gpus_are_given_by_index() -> None:
    ledger = Ledger({"GPU": 4})
    assert gpus_of(ledger, "a", 2) == {0: 1.0, 1: 1.0}
    assert gpus_of(ledger, "b", 1) == {2: 1.0}
    ledger.give_back("a")
    assert gpus_of(ledger, "c", 1) == {0: 1.0}


def test_shares_are_packed_on_the_fullest_gpu_with_room() -> None:
    ledger = Ledger({"GPU": 3})
    assert gpus_of(ledger, "a", 0.5) == {0: 0.5}
    assert gpus_of(ledger, "b", 0.75) == {1: 0.75}
    assert gpus_of(ledger, "c", 0.25) == {1: 0.25}
    assert gpus_of(ledger, "d", 0.5) == {0: 0.5}
    assert gpus_of(ledger, "e", 0.5) == {2: 0.5}


def test_a_share_that_fits_on_no_gpu_is_not_given_although_the_sum_would_do() -> None:
    ledger = Ledger({"GPU": 2})
    gpus_of(ledger, "a", 0.6)
    gpus_of(ledger, "b", 0.6)
    with pytest.raises(ResourcesUnavailable, match="no GPU has that share free"):
        gpus_of(ledger, "c", 0.6)


def test_a_whole_gpu_is_not_given_from_pieces() -> None:
    ledger = Ledger({"GPU": 2})
    gpus_of(ledger, "a", 0.1)
    gpus_of(ledger, "b", 1)
    with pytest.raises(ResourcesUnavailable):
        gpus_of(ledger, "c", 1)


def test_more_than_one_gpu_is_given_whole_only() -> None:
    with pytest.raises(ResourcesUnavailable, match="above 1 only whole GPUs can be given"):
        gpus_of(Ledger({"GPU": 4}), "a", 1.5)


shares = st.sampled_from([0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9999, 1, 2, 3])
wishes = st.fixed_dictionaries(
    {}, optional={"GPU": shares, "memory": st.integers(1, 700), "tpu": shares, "CPU": shares}
)


class Machine(RuleBasedStateMachine):
    """Holders come and go; the sums are counted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.total = {"CPU": 2, "GPU": 3, "memory": 1000, "tpu": 1.5}
        self.ledger = Ledger(self.total)
        self.held: dict[str, Any] = {}
        self.number = 0

    @rule(wanted=wishes)
    def take(self, wanted: dict[str, float]) -> None:
        self.number += 1
        before = self.ledger.free
        try:
            grant = self.ledger.take(str(self.number), wanted)
        except ResourcesUnavailable:
            assert self.ledger.free == before
        else:
            assert grant.amounts == wanted
            assert sum(grant.gpus.values()) == pytest.approx(wanted.get("GPU", 0))
            self.held[str(self.number)] = grant

    @rule(which=st.integers(0, 100))
    def give_back(self, which: int) -> None:
        if self.held:
            holder = sorted(self.held)[which % len(self.held)]
            del self.held[holder]
            self.ledger.give_back(holder)

    @rule()
    def give_all_back(self) -> None:
        for holder in self.held:
            self.ledger.give_back(holder)
        self.held.clear()
        assert self.ledger.free == self.total
        assert gpus_of(self.ledger, "all", 3) == {0: 1.0, 1: 1.0, 2: 1.0}
        self.ledger.give_back("all")

    @invariant()
    def nothing_but_cpus_is_overcommitted(self) -> None:
        given: Counter[str] = Counter()
        gpus: Counter[int] = Counter()
        for grant in self.held.values():
            given.update(grant.amounts)
            gpus.update(grant.gpus)
        for name, amount in given.items():
            assert name == "CPU" or amount <= self.total[name] + 1e-9
            assert self.ledger.free[name] == pytest.approx(self.total[name] - amount, abs=1e-3)
        assert all(share <= 1 + 1e-9 for share in gpus.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
