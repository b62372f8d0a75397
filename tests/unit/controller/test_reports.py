"""What replicas say of themselves: what becomes known of it, and when it is published."""

import pytest

from salver.controller.events import ReplicaReported
from salver.controller.reports import pause_s
from salver.schema.ids import ReplicaID
from tests.unit.controller.scene import ID, running


def test_a_report_changes_what_it_names_and_nothing_else() -> None:
    scene = running(1)
    scene.happen(ReplicaReported(ReplicaID("r1", ID), ("a",), {"load": 1.0}, {"queue": 2.0}, {"zone": "north"}))
    scene.happen(ReplicaReported(ReplicaID("r1", ID), multiplexed_model_ids=()))
    replica = scene.replica("r1")
    assert replica.multiplexed_model_ids == ()
    assert (replica.routing_stats, replica.autoscaling_stats) == ({"load": 1.0}, {"queue": 2.0})
    assert replica.metadata == {"zone": "north"}


def test_a_report_of_a_replica_that_is_gone_is_not_heard() -> None:
    scene = running(1)
    scene.exit("r1")
    scene.happen(ReplicaReported(ReplicaID("r1", ID), ("a",)))
    assert scene.stages() == {}


def test_no_deployment_is_looked_at_for_a_report() -> None:
    scene = running(1)
    assert scene.observed.apply(ReplicaReported(ReplicaID("r1", ID), ("a",)), scene.now) == set()


@pytest.mark.parametrize(("replicas", "expected"), [(1, 0.1), (100, 0.1), (1000, 1.0), (10_000, 10.0)])
def test_the_more_replicas_there_are_the_rarer_their_callers_hear(replicas: int, expected: float) -> None:
    assert pause_s(replicas) == pytest.approx(expected)
