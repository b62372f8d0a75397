"""The contract's table of request routing, row by row; other files look closer at each."""

import pytest

from salver.handle.outgoing import Hints
from salver.handle.policies.locality import Place
from salver.schema.application import RouterSpec
from tests.unit.handle.doubles import USER_CODE, Net, Request, Sequence, UserCode, outcomes, routed, running


def test_candidate_choice_two_are_drawn_and_the_shorter_queue_is_taken() -> None:
    net = Net()
    first, second = net.replica("a", 5), net.replica("b", 5)
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    routed(router, *"123")
    net.settle()
    assert (running(first), running(second)) == (["1", "3"], ["2"])


def test_candidate_choice_proxies_prefer_their_own_node_and_zone() -> None:
    net = Net()
    net.replica("far", 5, "there", "zone2")
    near = net.replica("near", 5, "here", "zone1")
    router = net.router(place=Place("here", "zone1", prefers_near=True))
    router.update(net.snapshot())
    routed(router, *"123")
    net.settle()
    assert running(near) == ["1", "2", "3"]


def test_queue_length_knowledge_is_exact_for_ones_own_and_comes_with_every_reply_for_others() -> None:
    net = Net()
    replica = net.replica("a", 9)
    busy, router = net.router(), net.router()
    for each in (busy, router):
        each.update(net.snapshot())
    routed(busy, *"1234")
    routed(router, "mine", "more")
    net.settle()
    [channel] = router._choices
    assert (len(channel.in_flight), channel.others) == (2, 0)
    replica.finish(running(replica).index("mine"))
    net.settle()
    assert (len(channel.in_flight), channel.others) == (1, 4)


def test_rejection_a_full_replica_refuses_and_the_request_goes_elsewhere() -> None:
    net = Net()
    net.replica("a", 1)
    other, router = net.router(), net.router()
    for each in (other, router):
        each.update(net.snapshot())
    routed(other, "1")
    net.settle()
    free = net.replica("b", 1)
    [request] = routed(router, "2")
    net.settle()
    router.update(net.snapshot())
    net.settle()
    assert running(free) == ["2"]
    assert outcomes([request]) == ["waits"]


def test_no_capacity_requests_wait_in_order_of_arrival() -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    routed(router, *"1234")
    served = []
    for _ in range(4):
        net.settle()
        served += running(replica)
        replica.finish()
    assert served == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("policy", "replicas"), [(None, 2), (RouterSpec(policy="consistent_hash"), 1)])
def test_session_id_is_honoured_by_the_consistent_hash_router_only(policy: RouterSpec | None, replicas: int) -> None:
    net = Net()
    everyone = [net.replica(name, 99) for name in "ab"]
    router = net.router()
    router.update(net.snapshot(router=policy))
    for number in range(10):
        router.route(Request(str(number), hints=Hints(session_id="s")))
    net.settle()
    assert len([each for each in everyone if each.running]) == replicas


@pytest.mark.parametrize("policy", [None, "round_robin", "least_loaded", "consistent_hash", "prefix_affinity"])
def test_dead_replica_is_dropped_from_candidates_at_once(policy: str | None) -> None:
    net = Net()
    dead, alive = net.replica("a", 9), net.replica("b", 9)
    router = net.router()
    router.update(net.snapshot(router=policy and RouterSpec(policy=policy)))
    routed(router, *"123456")
    net.settle()
    net.kill(dead)
    before = len(alive.running)
    routed(router, "7", "8")
    net.settle()
    assert router.num_replicas == 1
    assert len(alive.running) == before + 2


@pytest.mark.parametrize("policy", [None, "round_robin", "least_loaded", "consistent_hash", "prefix_affinity"])
def test_new_replica_set_is_used_from_the_next_snapshot_on(policy: str | None) -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    spec = policy and RouterSpec(policy=policy)
    router.update(net.snapshot(router=spec))
    routed(router, "1", "2")
    added = net.replica("b", 1)
    router.update(net.snapshot(router=spec))
    net.settle()
    assert running(added) == ["2"]


def test_custom_routers_choose_where_the_deployment_names_one() -> None:
    net = Net()
    net.replica("a", 9)
    chosen = net.replica("b", 9)
    router = net.router(user_code=UserCode(lambda replicas, _request: [[replicas[-1].replica_id]]))
    router.update(net.snapshot(router=USER_CODE))
    routed(router, *"123")
    net.settle()
    assert running(chosen) == ["1", "2", "3"]


def test_handle_from_another_process_has_its_own_router_and_its_own_queue_count() -> None:
    net = Net()
    net.replica("a", 1)
    here, there = net.router(), net.router()
    for each in (here, there):
        each.update(net.snapshot(max_queued_requests=1))
    ours, theirs = routed(here, "1", "2", "3"), routed(there, "4")
    net.settle()
    assert outcomes(ours) == ["waits", "waits", "refused"]
    assert outcomes(theirs) == ["waits"]
    assert (here.num_waiting, there.num_waiting) == (1, 1)
