"""Round robin, and the least loaded."""

from salver.schema.application import RouterSpec
from tests.unit.handle.doubles import Net, outcomes, routed, running


def test_round_robin_takes_each_in_turn_and_passes_over_the_full() -> None:
    net = Net()
    replicas = [net.replica("a", 9), net.replica("b", 1), net.replica("c", 9)]
    router = net.router()
    router.update(net.snapshot(router=RouterSpec(policy="round_robin")))
    routed(router, *"1234567")
    net.settle()
    assert [running(each) for each in replicas] == [["1", "4", "6"], ["2"], ["3", "5", "7"]]


def test_the_turn_is_kept_when_a_snapshot_changes_nothing() -> None:
    net = Net()
    replicas = [net.replica(name, 9) for name in "ab"]
    router = net.router()
    for name in "1234":
        router.update(net.snapshot(router=RouterSpec(policy="round_robin")))
        routed(router, name)
    net.settle()
    assert [running(each) for each in replicas] == [["1", "3"], ["2", "4"]]


def test_another_policy_is_followed_from_the_next_request_on() -> None:
    net = Net()
    replicas = [net.replica(name, 9) for name in "ab"]
    router = net.router()
    router.update(net.snapshot())
    router.update(net.snapshot(router=RouterSpec(policy="round_robin")))
    routed(router, *"1234")
    net.settle()
    assert [len(each.running) for each in replicas] == [2, 2]


def test_the_least_loaded_of_all_is_taken() -> None:
    net = Net()
    replicas = [net.replica(name, 9) for name in "abcde"]
    router = net.router()
    router.update(net.snapshot(router=RouterSpec(policy="least_loaded")))
    requests = routed(router, *[str(number) for number in range(10)])
    net.settle()
    assert [len(each.running) for each in replicas] == [2] * 5
    replicas[3].finish()
    net.settle()
    routed(router, "last")
    net.settle()
    assert "last" in running(replicas[3])
    assert outcomes(requests).count("answered") == 1
