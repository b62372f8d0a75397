"""How replicas leave, and when to look again."""

from typing import Any

from salver.controller.events import ReplicaStartFailed
from salver.controller.lifecycle import STOP_GRACE_S
from salver.controller.reconcile import SLOW_START_S
from salver.schema.ids import ReplicaID
from tests.unit.controller.scene import ID, Scene, running, wish


def unwanted(replicas: int = 1, **options: Any) -> Scene:
    """Return a scene whose running deployment was deleted."""
    scene = running(replicas, **options)
    scene.want(None)
    return scene


def test_all_replicas_of_a_deleted_deployment_drain() -> None:
    assert unwanted(2).look() == ["drain r1", "drain r2"]


def test_a_replica_that_never_served_has_nothing_to_drain() -> None:
    scene = Scene(wish(1))
    scene.look()
    scene.placed("r1")
    scene.want(None)
    assert scene.look() == ["stop r1"]


def test_a_drained_replica_is_stopped() -> None:
    scene = unwanted()
    scene.look()
    scene.drained("r1")
    assert scene.look() == ["stop r1"]


def test_a_replica_that_does_not_finish_is_killed_when_its_time_is_over() -> None:
    scene = unwanted(graceful_shutdown_timeout_s=20)
    scene.look()
    assert scene.plan().look_again_at == scene.now + 20
    assert scene.look(after_s=19.9) == []
    assert scene.look(after_s=0.1) == ["kill r1"]


def test_a_replica_without_time_to_drain_is_killed_at_once() -> None:
    assert unwanted(graceful_shutdown_timeout_s=0).look() == ["drain r1", "kill r1"]


def test_a_drained_replica_that_does_not_end_is_killed_after_a_grace() -> None:
    scene = unwanted(graceful_shutdown_timeout_s=1)
    scene.look()
    scene.drained("r1")
    scene.look()
    assert scene.look(after_s=STOP_GRACE_S - 0.1) == []
    assert scene.look(after_s=0.2) == ["kill r1"]


def test_a_slow_finalizer_has_what_is_left_of_the_time_to_drain() -> None:
    scene = unwanted(graceful_shutdown_timeout_s=60)
    scene.look()
    scene.drained("r1")
    scene.look()
    assert scene.look(after_s=59) == []
    assert scene.look(after_s=1) == ["kill r1"]


def test_a_killed_replica_is_waited_for_without_another_look() -> None:
    scene = unwanted(graceful_shutdown_timeout_s=0)
    scene.look()
    assert scene.look(after_s=1000) == []
    assert scene.plan().look_again_at is None
    assert scene.stages() == {"r1": "killed"}


def test_a_replica_that_is_stopped_before_its_process_appeared_is_killed_if_it_lingers() -> None:
    scene = Scene(wish(1))
    scene.look()
    scene.want(None)
    assert scene.look() == ["stop r1"]
    assert scene.look(after_s=STOP_GRACE_S) == ["kill r1"]
    scene.placed("r1")
    scene.exit("r1")
    assert scene.stages() == {}


def test_a_replica_whose_constructor_failed_is_killed_if_it_lingers() -> None:
    scene = Scene(wish(1, max_constructor_retry_count=1))
    scene.look()
    scene.placed("r1")
    scene.happen(ReplicaStartFailed(ReplicaID("r1", ID), "ValueError: boom"))
    assert scene.look() == []
    assert scene.look(after_s=STOP_GRACE_S) == ["kill r1"]


def test_nothing_is_due_where_all_is_well() -> None:
    assert running(2).plan().look_again_at is None


def test_a_slow_start_is_looked_at_for_a_word_in_the_status() -> None:
    scene = Scene(wish(1))
    scene.look()
    assert scene.plan().look_again_at == scene.now + SLOW_START_S
    scene.now += SLOW_START_S
    assert scene.plan().look_again_at is None


def test_a_long_wait_for_resources_is_looked_at_for_a_word_in_the_status() -> None:
    scene = Scene(wish(1))
    scene.look()
    scene.refuse("r1")
    assert scene.plan().look_again_at == scene.now + SLOW_START_S


def test_a_delayed_restart_is_looked_at_when_it_is_due() -> None:
    scene = running(1)
    scene.exit("r1")
    scene.look()
    scene.ready("r2")
    scene.exit("r2")
    due = scene.plan().look_again_at
    assert due is not None
    assert scene.look(after_s=due - scene.now) == ["start r3"]


def test_the_earliest_reason_to_look_again_counts() -> None:
    scene = running(2, graceful_shutdown_timeout_s=7)
    scene.want(wish(1, graceful_shutdown_timeout_s=7))
    scene.look()
    assert scene.stages() == {"r1": "draining", "r2": "running"}
    scene.exit("r2")
    assert scene.look() == ["start r3"]
    assert scene.plan().look_again_at == scene.now + 7
