"""Replicas that refuse, die or leave: what becomes of the requests."""

from salver.handle.retry_budget import MIN_RETRIES, SHARE
from salver.schema.errors import ProtocolError
from salver.schema.topics import Replicas
from salver.transport.wire import WAIT
from tests.unit.handle.doubles import Net, Request, Sequence, outcomes, routed, running


def test_a_rejected_request_goes_to_another_replica_and_nobody_notices() -> None:
    net = Net()
    full, free = net.replica("a", 1), net.replica("b", 1)
    other, router = net.router(), net.router(Sequence(0.0, 0.0))
    other.update(Replicas(replicas=(full.entry,)))
    routed(other, "theirs")
    net.settle()
    router.update(net.snapshot())
    (request,) = routed(router, "ours")
    net.settle()
    assert running(free) == ["ours"]
    net.run_out()
    assert (request.outcome, request.attempts) == ("answered", 1)


def test_rejected_requests_keep_their_order() -> None:
    net = Net()
    replica = net.replica("a", 3)
    other, router = net.router(), net.router()
    for each in (other, router):
        each.update(net.snapshot())
    routed(other, "x", "y", "z")
    net.settle()
    routed(router, "1", "2", "3", "4", "5")
    net.settle()
    assert router.num_waiting == 5
    served = []
    while replica.running:
        served += [running(replica)[0]]
        replica.finish()
        net.settle()
    assert served == ["x", "y", "z", "1", "2", "3", "4", "5"]


def test_a_rejected_request_is_there_for_whichever_replica_calls_back_first() -> None:
    net = Net()
    first, second = net.replica("a", 1), net.replica("b", 1)
    other, router = net.router(Sequence(0.0, 0.0)), net.router(Sequence(0.0, 0.0))
    for each in (router, other):
        each.update(net.snapshot())
        routed(each, "warm", "up")
        net.run_out()
    routed(other, "x", "y")
    net.settle()
    (request,) = routed(router, "1")
    to_first, to_second = net.ends[0], net.ends[2]
    to_first.carry()
    first.finish()
    to_first.other.carry()
    assert router.num_waiting == 1
    assert [frame[0] for frame in to_second.under_way] == [WAIT]
    to_first.other.carry()
    to_first.carry()
    assert running(first) == ["1"]
    net.run_out()
    assert request.outcome == "answered"
    assert (first.admission.taken, second.admission.taken) == (0, 0)


def test_when_a_replica_that_was_asked_for_room_dies_another_is_asked() -> None:
    net = Net()
    full, dying, idle = [net.replica(name, 1) for name in "abc"]
    other, router = net.router(), net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    routed(router, *"123")
    net.run_out()
    other.update(Replicas(replicas=(full.entry,)))
    routed(other, "x")
    net.settle()
    routed(router, "4")
    to_full, to_dying = net.ends[0], net.ends[2]
    to_full.carry()
    to_full.other.carry()
    assert [frame[0] for frame in to_dying.under_way] == [WAIT]
    net.kill(dying)
    net.settle()
    assert running(idle) == ["4"]


def test_two_callers_take_turns_at_a_full_replica() -> None:
    net = Net()
    replica = net.replica("a", 1)
    first, second = net.router(), net.router()
    for router in (first, second):
        router.update(net.snapshot())
    routed(first, "a1", "a2", "a3")
    net.settle()
    routed(second, "b1", "b2", "b3")
    served = []
    net.settle()
    while replica.running:
        served += running(replica)
        replica.finish()
        net.settle()
    assert served == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_a_slot_that_is_held_for_a_caller_without_requests_is_passed_on() -> None:
    net = Net()
    replica = net.replica("a", 1)
    first, second, third = [net.router() for _ in range(3)]
    for router in (first, second, third):
        router.update(net.snapshot())
    routed(first, "1")
    net.settle()
    (cancelled,) = routed(second, "2")
    routed(third, "3")
    net.settle()
    second.cancel(cancelled)
    replica.finish()
    net.settle()
    assert running(replica) == ["3"]
    assert cancelled.outcome == "waits"


def test_a_slot_held_for_a_request_that_is_too_large_is_passed_on() -> None:
    net = Net()
    replica = net.replica("a", 1)
    first, second, third = [net.router() for _ in range(3)]
    for router in (first, second, third):
        router.update(net.snapshot())
    routed(first, "1")
    net.settle()
    growing = Request("2")
    second.route(growing)
    routed(third, "3")
    net.settle()
    growing.too_large = True
    replica.finish()
    net.settle()
    assert isinstance(growing.error, ProtocolError)
    assert running(replica) == ["3"]


def test_a_replica_that_was_full_is_used_again_without_waiting_for_others() -> None:
    net = Net()
    replica = net.replica("a", 1)
    first, second = net.router(), net.router()
    for router in (first, second):
        router.update(net.snapshot())
    routed(first, "1")
    net.settle()
    routed(second, "2")
    net.run_out()
    routed(second, "3")
    net.settle()
    assert running(replica) == ["3"]


def test_a_replica_whose_connection_broke_is_not_chosen_any_more() -> None:
    net = Net()
    first, second = net.replica("a", 5), net.replica("b", 5)
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    routed(router, "1")
    net.settle()
    net.kill(first)
    assert router.num_replicas == 1
    routed(router, "2", "3")
    net.settle()
    assert running(second) == ["2", "3"]


def test_of_the_requests_of_a_dead_replica_only_those_that_may_be_repeated_are() -> None:
    net = Net()
    first = net.replica("a", 5)
    router = net.router()
    router.update(net.snapshot())
    once, again = Request("once"), Request("again", idempotent=True)
    router.route(once)
    router.route(again)
    net.settle()
    net.replica("b", 5)
    net.kill(first)
    assert (once.outcome, once.error) == ("lost", "shop#model#a")
    router.update(net.snapshot())
    net.run_out()
    assert (again.outcome, again.runs) == ("answered", 2)


def test_requests_of_a_dead_replica_come_before_those_that_wait_and_in_their_order() -> None:
    net = Net()
    first = net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    for name in "12345":
        router.route(Request(name, idempotent=True))
    net.settle()
    net.kill(first)
    second = net.replica("b", 5)
    router.update(net.snapshot())
    net.settle()
    assert running(second) == ["1", "2", "3", "4", "5"]


def test_a_request_is_sent_to_three_replicas_at_most() -> None:
    net = Net()
    router = net.router()
    request = Request("poison", idempotent=True)
    router.route(request)
    for name in "abc":
        replica = net.replica(name, 1)
        router.update(net.snapshot())
        net.settle()
        assert running(replica) == ["poison"]
        net.kill(replica)
    assert (request.outcome, request.runs) == ("lost", 3)


def test_retries_end_when_the_budget_does_but_never_those_of_requests_that_no_replica_had() -> None:
    net = Net()
    limit = 200
    first = net.replica("a", limit)
    router = net.router()
    router.update(net.snapshot())
    ran = [Request(f"ran {number}", idempotent=True) for number in range(limit)]
    waited = [Request(f"waited {number}") for number in range(50)]
    for request in (*ran, *waited):
        router.route(request)
    net.settle()
    paid_for = int(MIN_RETRIES + SHARE * 250)
    net.kill(first)
    assert outcomes(ran).count("lost") == limit - paid_for
    assert router.num_waiting == paid_for + 50
    net.replica("b", limit)
    router.update(net.snapshot())
    net.run_out()
    assert outcomes(ran).count("answered") == paid_for
    assert set(outcomes(waited)) == {"answered"}


def test_a_request_that_never_left_is_sent_elsewhere_however_often() -> None:
    net = Net()
    net.tasks.at_once = False
    router = net.router()
    request = Request("1")
    router.route(request)
    for name in "abcde":
        replica = net.replica(name, 1)
        router.update(net.snapshot())
        net.kill(replica)
        net.tasks.go_on()
    assert (request.outcome, request.attempts, router.num_waiting) == ("waits", 0, 1)
    net.replica("f", 1)
    router.update(net.snapshot())
    net.tasks.go_on()
    net.run_out()
    assert request.outcome == "answered"


def test_a_replica_that_is_in_the_next_snapshot_again_is_dialled_again() -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    (first,) = routed(router, "1")
    net.settle()
    net.ends[0].cut()
    assert (first.outcome, router.num_replicas) == ("lost", 0)
    router.update(net.snapshot())
    routed(router, "2")
    net.settle()
    assert running(replica) == ["2"]


def test_a_replica_that_left_the_snapshot_gets_no_more_and_is_closed_after_its_last_answer() -> None:
    net = Net()
    first = net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    (request,) = routed(router, "1")
    net.settle()
    del net.replicas["a"]
    second = net.replica("b", 2)
    router.update(net.snapshot())
    routed(router, "2")
    net.settle()
    assert (running(first), running(second)) == (["1"], ["2"])
    assert not net.ends[0].closed
    first.finish()
    net.settle()
    assert request.outcome == "answered"
    assert net.ends[0].closed


def test_a_replica_that_left_is_closed_after_it_rejected_its_last_request() -> None:
    net = Net()
    first = net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    (request,) = routed(router, "1")
    first.admission.close()
    net.replica("b", 2)
    del net.replicas["a"]
    router.update(net.snapshot())
    net.settle()
    assert net.ends[0].closed
    net.run_out()
    assert request.outcome == "answered"


def test_a_replica_that_left_is_closed_after_its_last_request_was_cancelled() -> None:
    net = Net()
    net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    (request,) = routed(router, "1")
    net.settle()
    router.update(Replicas())
    router.cancel(request)
    assert net.ends[0].closed


def test_a_replica_that_left_while_it_was_dialled_is_closed_once_that_is_done() -> None:
    net = Net()
    net.tasks.at_once = False
    net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    (request,) = routed(router, "1")
    router.cancel(request)
    router.update(Replicas())
    net.tasks.go_on()
    assert net.ends[0].closed


def test_what_waits_for_a_connection_is_sent_although_the_replica_left_meanwhile() -> None:
    net = Net()
    net.tasks.at_once = False
    replica = net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot())
    routed(router, "1")
    router.update(Replicas())
    net.tasks.go_on()
    net.settle()
    assert running(replica) == ["1"]


def test_a_slot_that_a_replica_holds_although_it_left_is_passed_on() -> None:
    net = Net()
    replica = net.replica("a", 1)
    first, second = net.router(), net.router()
    for router in (first, second):
        router.update(net.snapshot())
    routed(first, "1", "2")
    net.settle()
    routed(second, "3")
    net.settle()
    second.update(Replicas())
    replica.finish()
    net.settle()
    assert replica.admission.taken == 1
    assert running(replica) == ["2"]


def test_a_request_that_is_too_large_to_send_holds_up_nobody_behind_it() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    requests = [Request("first"), Request("large", too_large=True), Request("last")]
    for request in requests:
        router.route(request)
    net.run_out()
    assert outcomes(requests) == ["answered", "refused", "answered"]
