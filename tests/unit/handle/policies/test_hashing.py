"""Consistent hashing: keys stay where they are, and few move when replicas come and go."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.handle.outgoing import Hints
from salver.handle.policies.hashing import HashRing
from salver.schema.application import RouterSpec
from tests.unit.handle.doubles import Net, Request, running

KEYS = [f"session {number}" for number in range(2000)]
BY_SESSION = RouterSpec(policy="consistent_hash")


def ring(members: list[str]) -> HashRing:
    made = HashRing()
    made.set_members(members)
    return made


def owners(of: HashRing) -> dict[str, str]:
    """Return who is preferred first by each key."""
    return {key: next(of.preferred(key)) for key in KEYS}


@pytest.mark.parametrize("size", [2, 5, 10, 30])
def test_when_a_replica_comes_only_its_share_of_the_keys_moves_and_all_to_it(size: int) -> None:
    members = [f"replica{number}" for number in range(size)]
    before, after = owners(ring(members)), owners(ring([*members, "new"]))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {"new"}
    assert len(moved) < 2 * len(KEYS) / (size + 1)


def test_when_a_replica_goes_only_its_own_keys_move_and_to_whom_they_preferred_next() -> None:
    members = [f"replica{number}" for number in range(8)]
    full, less = ring(members), ring(members[1:])
    for key in KEYS:
        first, second, *_ = full.preferred(key)
        assert next(less.preferred(key)) == (second if first == members[0] else first)


def test_the_keys_are_shared_evenly() -> None:
    shares = Counter(owners(ring([f"replica{number}" for number in range(10)])).values())
    assert max(shares.values()) < 2 * min(shares.values())


@given(st.sets(st.text(max_size=5), max_size=6), st.text(max_size=9))
def test_a_key_prefers_every_member_once_whatever_the_history(names: set[str], key: str) -> None:
    other = ring(["a", "b", "something else"])
    other.set_members(names)
    assert sorted(other.preferred(key)) == sorted(names)
    assert list(other.preferred(key)) == list(ring(sorted(names)).preferred(key))


def test_a_session_goes_to_its_replica_while_it_has_room_and_then_to_the_next_and_comes_back() -> None:
    net = Net()
    replicas = {name: net.replica(name, 1) for name in "abcd"}
    router = net.router()
    router.update(net.snapshot(router=BY_SESSION))
    expected = list(ring(sorted(replicas)).preferred("s"))
    for number in range(4):
        router.route(Request(str(number), hints=Hints(session_id="s")))
    waiting = Request("waits", hints=Hints(session_id="s"))
    router.route(waiting)
    net.settle()
    assert [running(replicas[name]) for name in expected[:3]] == [["0"], ["1"], ["2"]]
    assert router.num_waiting == 1
    replicas[expected[3]].finish()
    net.settle()
    assert running(replicas[expected[3]]) == ["waits"]
    net.run_out()
    router.route(Request("again", hints=Hints(session_id="s")))
    net.settle()
    assert running(replicas[expected[0]]) == ["again"]


def test_all_callers_agree_on_a_sessions_replica() -> None:
    net = Net()
    replicas = [net.replica(name, 9) for name in "abcd"]
    for _ in range(5):
        router = net.router()
        router.update(net.snapshot(router=BY_SESSION))
        router.route(Request(hints=Hints(session_id="s")))
    net.settle()
    assert sorted(len(each.running) for each in replicas) == [0, 0, 0, 5]


def test_without_a_session_the_requests_own_id_is_the_key() -> None:
    net = Net()
    replicas = [net.replica(name, 99) for name in "abcd"]
    router = net.router()
    router.update(net.snapshot(router=BY_SESSION))
    for number in range(80):
        router.route(Request(f"request {number}"))
    net.settle()
    assert min(len(each.running) for each in replicas) > 5
