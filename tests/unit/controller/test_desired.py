"""What was asked."""

from typing import Any

import pytest

from salver.controller.desired import Desired
from salver.schema.errors import SalverError
from salver.schema.ids import DeploymentID
from tests.unit.controller.scene import application, deployment


def test_a_deployed_application_is_wanted_and_touches_its_deployments() -> None:
    desired = Desired()
    touched = desired.deploy(application(deployment("A"), deployment("B"), name="x"), 5.0)
    assert touched == {DeploymentID("A", "x"), DeploymentID("B", "x")}
    assert [wish.id.name for wish in desired.wishes()] == ["A", "B"]
    assert desired.applications["x"].deployed_at_s == 5.0


def test_a_deployment_that_the_next_version_no_longer_has_is_touched_and_not_wanted() -> None:
    desired = Desired()
    desired.deploy(application(deployment("A"), deployment("B"), name="x"), 1.0)
    touched = desired.deploy(application(deployment("A"), name="x", version="v2"), 2.0)
    assert touched == {DeploymentID("A", "x"), DeploymentID("B", "x")}
    assert desired.wish_for(DeploymentID("B", "x")) is None
    wish = desired.wish_for(DeploymentID("A", "x"))
    assert wish is not None
    assert wish.version == "v2"


def test_a_deleted_application_is_not_wanted() -> None:
    desired = Desired()
    desired.deploy(application(name="x"), 1.0)
    assert desired.delete("x") == {DeploymentID("Model", "x")}
    assert (list(desired.wishes()), desired.wish_for(DeploymentID("Model", "x"))) == ([], None)


def test_deleting_an_unknown_application_touches_nothing() -> None:
    assert Desired().delete("x") == set()


def test_the_first_replicas_of_an_autoscaled_deployment_are_those_it_starts_with() -> None:
    desired = Desired()
    scaled = deployment(autoscaling_config={"min_replicas": 0, "initial_replicas": 2, "max_replicas": 3})
    desired.deploy(application(scaled), 1.0)
    assert [wish.replicas for wish in desired.wishes()] == [2]


def test_only_the_ingress_is_reached_by_http() -> None:
    desired = Desired()
    desired.deploy(application(deployment("A"), deployment("B")), 1.0)


def test_a_prefix_belongs_to_one_application() -> None:
    desired = Desired()
    desired.deploy(application(name="x", route_prefix="/a"), 1.0)
    with pytest.raises(SalverError, match=r'^Prefix /a is being used by application "x"\. Failed to deploy .*"y"\.$'):
        desired.deploy(application(name="y", route_prefix="/a"), 2.0)
    assert list(desired.applications) == ["x"]


def test_an_application_may_keep_its_own_prefix_and_free_it_for_another() -> None:
    desired = Desired()
    desired.deploy(application(name="x", route_prefix="/a"), 1.0)
    desired.deploy(application(name="x", route_prefix="/b"), 2.0)
    desired.deploy(application(name="y", route_prefix="/a"), 3.0)
    assert [(route.prefix, route.app_name) for route in desired.routes().routes] == [("/a", "y"), ("/b", "x")]


def test_routes_are_longest_first_and_leave_out_what_only_handles_reach() -> None:
    desired = Desired()
    for name, prefix in (("root", "/"), ("b", "/b"), ("ab", "/a/b"), ("a", "/a"), ("hidden", None)):
        desired.deploy(application(name=name, route_prefix=prefix), 1.0)
    assert [route.prefix for route in desired.routes().routes] == ["/a/b", "/a", "/b", "/"]
    assert desired.routes().routes[0].ingress == DeploymentID("Model", "ab")


def test_a_route_says_how_long_bodies_may_be_that_its_ingress_takes() -> None:
    desired = Desired()
    desired.deploy(application(deployment("A", max_request_body_bytes=0), deployment("B"), name="a"), 1.0)
    desired.deploy(
        application(deployment("A"), deployment("B", max_request_body_bytes=1), route_prefix="/b", name="b"), 1.0
    )
    limits = {route.app_name: route.max_request_body_bytes for route in desired.routes().routes}
    assert limits == {"a": 0, "b": None}


@pytest.mark.parametrize(
    ("options", "failures"),
    [
        ({"num_replicas": 1}, 3),
        ({"num_replicas": 4}, 12),
        ({"num_replicas": 100}, 20),
        ({"num_replicas": 4, "max_constructor_retry_count": 5}, 5),
        ({"autoscaling_config": {"min_replicas": 0}}, 3),
    ],
)
def test_three_failures_for_each_replica_and_twenty_in_all_are_enough(options: dict[str, Any], failures: int) -> None:
    desired = Desired()
    desired.deploy(application(deployment(**options)), 1.0)
    assert [wish.max_startup_failures for wish in desired.wishes()] == [failures]
