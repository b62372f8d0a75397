"""Near replicas first: the same node, then the same zone, then all."""

import pytest

from salver.handle.outgoing import Hints
from salver.handle.policies.locality import Place
from salver.schema.application import RouterSpec
from tests.unit.handle.doubles import Net, Request, Sequence, running

HERE = Place("here", "zone1")


def net_of_three() -> Net:
    net = Net()
    net.replica("near", 1, "here", "zone1")
    net.replica("zone", 1, "there", "zone1")
    net.replica("far", 1, "elsewhere", "zone2")
    return net


@pytest.mark.parametrize(
    ("place", "hints", "policy"),
    [
        pytest.param(HERE._replace(prefers_near=True), Hints(), None, id="a proxy"),
        pytest.param(HERE, Hints(prefer_local=True), None, id="a call that asks for it"),
        pytest.param(HERE, Hints(), RouterSpec(policy="locality"), id="a deployment that asks for it"),
    ],
)
def test_the_same_node_then_the_same_zone_then_all(place: Place, hints: Hints, policy: RouterSpec | None) -> None:
    net = net_of_three()
    router = net.router(place=place)
    router.update(net.snapshot(router=policy))
    for name in "123":
        router.route(Request(name, hints=hints))
    net.settle()
    assert [running(net.replicas[name]) for name in ("near", "zone", "far")] == [["1"], ["2"], ["3"]]


def test_handles_do_not_prefer_near_replicas_unless_asked() -> None:
    net = net_of_three()
    router = net.router(Sequence(0.9, 0.9), place=HERE)
    router.update(net.snapshot())
    router.route(Request("1"))
    net.settle()
    assert running(net.replicas["near"]) == []


def test_distance_costs_nothing_where_all_replicas_are_on_one_node() -> None:
    net = Net()
    net.replica("a", 1, "here")
    net.replica("b", 1, "here")
    router = net.router(place=HERE._replace(prefers_near=True))
    router.update(net.snapshot())
    assert router._policy is None
    net.replica("c", 1, "there")
    router.update(net.snapshot())
    assert router._policy is not None
