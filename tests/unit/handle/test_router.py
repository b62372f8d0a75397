"""The router: who gets a request, who waits, and who is refused."""

import pytest

from salver.schema.errors import BackPressureError, DeploymentUnavailableError
from salver.schema.topics import Replicas
from tests.unit.handle.doubles import Net, Request, Sequence, outcomes, routed, running


def test_the_less_loaded_of_two_replicas_is_chosen() -> None:
    net = Net()
    first, second = net.replica("a", 5), net.replica("b", 5)
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    routed(router, *"1234")
    net.settle()
    assert (running(first), running(second)) == (["1", "3"], ["2", "4"])


def test_two_replicas_are_drawn_and_the_rest_is_not_looked_at() -> None:
    net = Net()
    replicas = [net.replica(name, 5) for name in "abc"]
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    routed(router, *"123456")
    net.settle()
    assert [len(each.running) for each in replicas] == [3, 3, 0]


def test_the_load_that_others_cause_counts() -> None:
    net = Net()
    first, second = net.replica("a", 5), net.replica("b", 5)
    busy, router = net.router(Sequence(0.0, 0.0)), net.router(Sequence(0.0, 0.0))
    busy.update(Replicas(replicas=(first.entry,)))
    routed(busy, *"1234")
    net.settle()
    router.update(net.snapshot())
    routed(router, "asks a")
    net.settle()
    first.finish(4)
    net.settle()
    routed(router, "5", "6", "7")
    net.settle()
    assert running(second) == ["5", "6", "7"]


def test_when_both_that_were_drawn_are_full_any_with_room_is_chosen() -> None:
    net = Net()
    replicas = [net.replica(name, 1) for name in "abc"]
    router = net.router(Sequence(0.0, 0.0))
    router.update(net.snapshot())
    requests = routed(router, *"123")
    net.settle()
    assert [len(each.running) for each in replicas] == [1, 1, 1]
    assert router.num_waiting == 0
    assert outcomes(requests) == ["waits"] * 3


def test_waiting_requests_are_served_in_order() -> None:
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
    net.settle()
    assert served == ["1", "2", "3", "4"]


def test_requests_wait_while_there_is_no_replica_and_are_served_by_the_first() -> None:
    net = Net()
    router = net.router()
    requests = routed(router, "1", "2")
    router.update(Replicas())
    assert router.num_waiting == 2
    replica = net.replica("a", 1)
    router.update(net.snapshot())
    net.settle()
    assert running(replica) == ["1"]
    net.run_out()
    assert outcomes(requests) == ["answered", "answered"]


def test_a_new_replica_takes_from_the_queue_at_once() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    routed(router, "1", "2")
    second = net.replica("b", 1)
    router.update(net.snapshot())
    net.settle()
    assert running(second) == ["2"]


def test_a_higher_limit_takes_from_the_queue_at_once() -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    routed(router, "1", "2", "3")
    replica.limit = 3
    replica.admission.change_limit(3)
    router.update(net.snapshot())
    net.settle()
    assert running(replica) == ["1", "2", "3"]


def test_only_requests_that_wait_count_against_the_queue() -> None:
    net = Net()
    net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot(max_queued_requests=1, backpressure_status=429, backpressure_retry_after_s=2.0))
    requests = routed(router, *"123456")
    assert outcomes(requests) == ["waits"] * 3 + ["refused"] * 3
    error = requests[3].error
    assert isinstance(error, BackPressureError)
    assert (str(error), error.status_code, error.retry_after_s) == (str(BackPressureError(1, 1)), 429, 2.0)


def test_a_burst_in_one_tick_on_idle_replicas_is_not_refused() -> None:
    net = Net()
    net.tasks.at_once = False
    net.replica("a", 3)
    net.replica("b", 3)
    router = net.router()
    router.update(net.snapshot(max_queued_requests=1))
    requests = routed(router, *"123456")
    net.tasks.go_on()
    net.run_out()
    assert outcomes(requests) == ["answered"] * 6


def test_a_burst_before_the_replicas_are_known_is_cut_to_the_queue_once_they_are() -> None:
    net = Net()
    net.replica("a", 2)
    router = net.router()
    requests = routed(router, *"123456")
    assert outcomes(requests) == ["waits"] * 6
    router.update(net.snapshot(max_queued_requests=1))
    assert outcomes(requests) == ["waits"] * 3 + ["refused"] * 3
    net.run_out()
    assert outcomes(requests) == ["answered"] * 3 + ["refused"] * 3


def test_requests_that_come_back_from_a_dead_replica_do_not_push_out_those_that_wait() -> None:
    net = Net()
    replica = net.replica("a", 2)
    router = net.router()
    router.update(net.snapshot(max_queued_requests=1))
    requests = [Request(name, idempotent=True) for name in "123"]
    for request in requests:
        router.route(request)
    net.settle()
    net.kill(replica)
    router.update(net.snapshot(max_queued_requests=1))
    assert router.num_waiting == 3
    net.replica("b", 3)
    router.update(net.snapshot(max_queued_requests=1))
    net.run_out()
    assert outcomes(requests) == ["answered"] * 3


def test_a_place_in_the_queue_is_free_again_when_a_waiting_request_is_cancelled() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot(max_queued_requests=1))
    _, waiting, refused = routed(router, "1", "2", "3")
    assert refused.outcome == "refused"
    router.cancel(waiting)
    (late,) = routed(router, "4")
    assert late.outcome == "waits"
    net.run_out()
    assert (waiting.outcome, late.outcome) == ("waits", "answered")


def test_without_replicas_a_reason_refuses_requests() -> None:
    router = Net().router()
    (early,) = routed(router, "1")
    router.update(Replicas(unavailable="it failed to deploy"))
    (late,) = routed(router, "2")
    for request in (early, late):
        assert isinstance(request.error, DeploymentUnavailableError)
        assert "is unavailable because it failed to deploy." in str(request.error)
    assert router.num_waiting == 0


def test_a_reason_does_not_matter_while_there_are_replicas() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot(unavailable="its update failed"))
    requests = routed(router, "1", "2")
    net.run_out()
    assert outcomes(requests) == ["answered", "answered"]


def test_a_request_that_no_replica_saw_is_unavailable_and_not_lost() -> None:
    net = Net()
    replica = net.replica("a", 1)
    net.tasks.at_once = False
    router = net.router()
    router.update(net.snapshot(unavailable="it was deleted"))
    (request,) = routed(router, "1")
    net.kill(replica)
    net.tasks.go_on()
    assert isinstance(request.error, DeploymentUnavailableError)


def test_closing_refuses_what_waits() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    requests = routed(router, "1", "2")
    net.settle()
    router.close()
    net.settle()
    assert outcomes([*requests, *routed(router, "3")]) == ["lost", "refused", "refused"]


def test_closing_while_a_replica_is_dialled_refuses_what_never_left() -> None:
    net = Net()
    net.tasks.at_once = False
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    (request,) = routed(router, "1")
    router.close()
    net.tasks.go_on()
    net.settle()
    assert (request.outcome, replica.most) == ("refused", 0)


def test_a_cancelled_request_that_waits_is_skipped() -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    requests = routed(router, "1", "2", "3")
    router.cancel(requests[1])
    router.cancel(requests[1])
    assert router.num_waiting == 1
    net.settle()
    replica.finish()
    net.settle()
    assert running(replica) == ["3"]


def test_a_cancelled_request_that_runs_is_cancelled_there_and_makes_room() -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot())
    first, _ = routed(router, "1", "2")
    net.settle()
    router.cancel(first)
    net.settle()
    assert running(replica) == ["2"]


@pytest.mark.parametrize("outcome", ["answered", "refused", "lost"])
def test_cancelling_what_is_over_changes_nothing(outcome: str) -> None:
    net = Net()
    replica = net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot(max_queued_requests=0 if outcome == "refused" else -1))
    requests = routed(router, "1", "2") if outcome == "refused" else routed(router, "1")
    net.settle()
    if outcome == "answered":
        replica.finish()
        net.settle()
    elif outcome == "lost":
        net.kill(replica)
    assert requests[-1].outcome == outcome
    router.cancel(requests[-1])
    assert router.num_waiting == 0


def test_abandoned_requests_do_not_pile_up() -> None:
    router = Net().router()
    for _ in range(10_000):
        (request,) = routed(router, "1")
        router.cancel(request)
    assert router.num_waiting == 0
    assert len(router._waiting) < 100
