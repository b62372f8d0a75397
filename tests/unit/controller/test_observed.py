"""What events make of what is known."""

import pytest

from salver.controller.events import ReplicaReadied, ResourcesFreed, WishChanged
from salver.controller.lifecycle import Stage
from salver.controller.observed import Observed
from salver.lib.restarts import MAX_RESTART_DELAY_S, QUICK_DEATH_S, restart_delay_s
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.status import ReplicaState
from tests.unit.controller.scene import ID, Scene, running, wish


def test_a_launched_replica_starts() -> None:
    scene = Scene(wish())
    scene.look()
    assert scene.stages() == {"r1": "starting"}
    assert scene.view.counts() == {ReplicaState.STARTING: 1}


def test_a_ready_replica_has_an_address_and_a_place() -> None:
    scene = running(1)
    replica = scene.replica("r1")
    assert (replica.stage, replica.address, replica.node_id, replica.pid) == (Stage.RUNNING, "unix:/r1", "node", 7)


def test_a_replica_may_be_ready_before_its_start_is_confirmed() -> None:
    scene = Scene(wish())
    scene.look()
    scene.happen(ReplicaReadied(ReplicaID("r1", ID), "unix:/r1"))
    scene.placed("r1")
    assert (scene.serving(), scene.replica("r1").node_id) == (["r1"], "node")


def test_a_constructor_may_fail_before_the_start_is_confirmed() -> None:
    scene = Scene(wish())
    scene.look()
    scene.fail("r1")
    scene.placed("r1")
    assert (scene.stages(), scene.view.failures) == ({}, 1)


def test_a_failed_start_counts_once_although_the_process_exits_too() -> None:
    scene = Scene(wish())
    scene.look()
    scene.fail("r1", reason="ValueError: boom")
    assert (scene.view.failures, scene.view.last_failure) == (1, "ValueError: boom")


def test_a_process_that_exits_before_it_is_ready_is_a_failed_start() -> None:
    scene = Scene(wish())
    scene.look()
    scene.exit("r1", how="was killed by SIGKILL")
    assert (scene.view.failures, scene.view.last_failure) == (1, "was killed by SIGKILL")


def test_a_ready_replica_forgives_the_failures_before_it() -> None:
    scene = Scene(wish())
    scene.look()
    scene.fail("r1")
    scene.look()
    scene.ready("r2")
    assert (scene.view.failures, scene.view.last_failure, scene.view.has_run) == (0, "", True)


def test_failures_of_another_version_do_not_count() -> None:
    scene = Scene(wish())
    scene.look()
    scene.want(wish(version="v2"))
    scene.fail("r1")
    assert scene.view.failures == 0


def test_a_new_version_starts_with_a_clean_record_and_the_replicas_that_are_there() -> None:
    scene = Scene(wish())
    scene.look()
    scene.fail("r1")
    scene.look()
    scene.want(wish(version="v2"))
    assert (scene.view.failures, list(scene.stages())) == (0, ["r2"])


def test_the_same_wish_again_keeps_the_record() -> None:
    scene = Scene(wish())
    scene.look()
    scene.fail("r1")
    scene.want(wish())
    assert scene.view.failures == 1


def test_a_death_is_noted_until_a_replica_is_ready_again() -> None:
    scene = running(2)
    scene.exit("r1", how="was killed by SIGSEGV")
    assert (scene.view.has_died, scene.view.last_failure) == (True, "was killed by SIGSEGV")
    scene.look()
    scene.ready("r3")
    assert not scene.view.has_died


def test_a_replica_that_leaves_on_order_does_not_count_as_dead() -> None:
    scene = running(1)
    scene.want(None)
    scene.look()
    scene.leave("r1")
    assert (scene.view.has_died, scene.view.crashes, scene.view.replicas) == (False, 0, {})


def test_quick_deaths_make_successors_wait_longer_each_time() -> None:
    scene = running(1)
    waits = []
    for number in range(1, 5):
        scene.exit(f"r{number}")
        waits.append(scene.view.restart_at - scene.now)
        scene.look(after_s=waits[-1])
        scene.ready(f"r{number + 1}")
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.4])


def test_a_death_after_a_long_life_is_replaced_at_once() -> None:
    scene = running(1)
    scene.exit("r1")
    scene.look()
    scene.ready("r2")
    scene.now += QUICK_DEATH_S
    scene.exit("r2")
    assert (scene.view.crashes, scene.view.restart_at) == (0, scene.now)


def test_failed_starts_wait_too_where_they_are_repeated_for_ever() -> None:
    scene = running(2)
    scene.now += QUICK_DEATH_S
    scene.exit("r1")
    for number in range(3, 7):
        scene.look(after_s=MAX_RESTART_DELAY_S)
        scene.fail(f"r{number}")
    assert scene.view.restart_at - scene.now == pytest.approx(restart_delay_s(4))


@pytest.mark.parametrize(("deaths", "delay_s"), [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (9, 10.0), (10**6, 10.0)])
def test_the_delay_doubles_up_to_a_limit(deaths: int, delay_s: float) -> None:
    assert restart_delay_s(deaths) == pytest.approx(delay_s)


def test_a_refused_replica_is_gone_and_its_deployment_waits_until_resources_are_freed() -> None:
    scene = Scene(wish())
    scene.look()
    scene.refuse("r1", reason="GPU is short")
    assert (scene.stages(), scene.view.no_room, scene.view.no_room_since) == ({}, "GPU is short", scene.now)
    scene.exit("somebody else's")
    assert scene.view.no_room is None


def test_waiting_began_with_the_first_refusal() -> None:
    scene = Scene(wish())
    scene.look()
    scene.refuse("r1")
    began = scene.now
    scene.exit("somebody else's")
    scene.look(after_s=10)
    scene.refuse("r2")
    assert scene.view.no_room_since == began


def test_waiting_is_over_when_a_replica_is_placed() -> None:
    scene = Scene(wish())
    scene.look()
    scene.refuse("r1")
    scene.exit("somebody else's")
    scene.look()
    scene.placed("r2")
    assert scene.view.no_room_since is None


def test_a_refusal_of_an_earlier_version_says_nothing_about_this_one() -> None:
    scene = Scene(wish())
    scene.look()
    scene.want(wish(version="v2"))
    scene.refuse("r1")
    assert scene.view.no_room is None


def test_only_deployments_that_wait_are_looked_at_when_resources_are_freed() -> None:
    scene = Scene(wish())
    scene.happen(WishChanged(DeploymentID("Other", "shop"), "v1"))
    scene.look()
    scene.refuse("r1")
    assert scene.observed.apply(ResourcesFreed(), scene.now) == {ID}
    assert scene.observed.apply(ResourcesFreed(), scene.now) == set()


def test_what_happens_to_an_unknown_replica_changes_nothing() -> None:
    observed = Observed()
    observed.apply(ReplicaReadied(ReplicaID("x", ID), "unix:/x"), 1.0)
    assert observed.deployments == {}


def test_looking_does_not_make_anything_known() -> None:
    observed = Observed()
    assert observed.view(ID).replicas == {}
    assert observed.replica(ReplicaID("x", ID)) is None
    assert observed.deployments == {}


def test_a_deployment_with_replicas_is_not_forgotten() -> None:
    scene = running(1)
    scene.observed.forget(ID)
    assert ID in scene.observed.deployments
    scene.exit("r1")
    scene.observed.forget(ID)
    assert scene.observed.deployments == {}
