"""When a replica is replaced because it does not fare well."""

import pytest

from salver.controller.events import ReplicaHeard
from salver.controller.health import (
    LOOP_HELD_LIMIT_S,
    MAX_FAILED_CHECKS,
    MIN_SILENCE_S,
    SILENCE_GRACE_S,
    silence_allowed_s,
)
from salver.controller.status import Standing, next_standing
from salver.lib.restarts import QUICK_DEATH_S
from salver.schema.status import DeploymentStatus, DeploymentStatusTrigger
from tests.unit.controller.scene import Scene, running, wish

SILENCE_S = silence_allowed_s(10, 30)


def heard(replicas: int = 1) -> Scene:
    """Return a deployment whose replicas have run for a while and told that they are well."""
    scene = running(replicas)
    scene.look(after_s=QUICK_DEATH_S)
    scene.hear(*scene.serving())
    return scene


def standing(scene: Scene, before: Standing) -> Standing:
    return next_standing(before, scene.wish, scene.view, scene.now)


def test_three_failed_checks_in_a_row_retire_a_replica_and_start_another_at_once() -> None:
    scene = heard(2)
    for failures in range(1, MAX_FAILED_CHECKS):
        scene.hear("r1", failures=failures, reason="ValueError: ill")
        assert scene.look() == []
    scene.hear("r1", failures=MAX_FAILED_CHECKS, reason="ValueError: ill")
    assert scene.look() == ["retire r1", "start r3"]
    assert scene.stages() == {"r1": "draining", "r2": "running", "r3": "starting"}


def test_failures_that_are_not_in_a_row_do_nothing() -> None:
    scene = heard()
    for _ in range(10):
        scene.hear("r1", failures=MAX_FAILED_CHECKS - 1, reason="ValueError: ill")
        scene.hear("r1")
        assert scene.look(after_s=10) == []


def test_the_deployment_is_unhealthy_until_the_replacement_serves_alone() -> None:
    scene = heard(2)
    healthy = Standing(DeploymentStatus.HEALTHY, DeploymentStatusTrigger.UNSPECIFIED)
    scene.hear("r1", failures=3, reason="ValueError: ill")
    scene.look()
    unhealthy = standing(scene, healthy)
    assert (unhealthy.status, unhealthy.trigger) == (
        DeploymentStatus.UNHEALTHY,
        DeploymentStatusTrigger.HEALTH_CHECK_FAILED,
    )
    assert unhealthy.message == (
        "A replica's health check failed. This deployment will be UNHEALTHY until the replica recovers or a new deploy "
        "happens. Error:\nValueError: ill"
    )
    scene.ready("r3")
    scene.leave("r1")
    after = standing(scene, unhealthy)
    assert (after.status, after.trigger, after.message) == (
        DeploymentStatus.HEALTHY,
        DeploymentStatusTrigger.UNSPECIFIED,
        "",
    )


def test_a_replica_that_is_not_ready_yet_or_leaves_is_not_retired_for_its_checks() -> None:
    scene = Scene(wish(1))
    scene.look()
    scene.placed("r1")
    scene.hear("r1", failures=9, reason="early")
    assert scene.look() == []
    leaving = heard()
    leaving.want(None)
    leaving.look()
    leaving.hear("r1", failures=9, reason="late")
    assert leaving.look() == []


def test_one_that_kills_itself_by_its_checks_again_and_again_waits_longer_each_time() -> None:
    scene = running(1)
    number = 1
    for delay in (0.0, 0.1, 0.2, 0.4):
        scene.hear(f"r{number}", failures=3, reason="ill")
        assert scene.look()[0] == f"retire r{number}"
        number += 1
        scene.look(after_s=delay)
        scene.ready(f"r{number}")


def test_an_update_whose_replicas_get_ill_fails_and_old_ones_serve_on() -> None:
    scene = heard(2)
    scene.want(wish(2, "v2"))
    scene.look()
    launched = 2
    while scene.view.crashes < scene.wish.max_startup_failures:  # type: ignore[union-attr]
        launched += 1
        scene.ready(f"r{launched}")
        scene.hear(f"r{launched}", failures=3, reason="ill")
        scene.look()
        scene.leave(f"r{launched}")
        scene.look(after_s=QUICK_DEATH_S * 3)
        assert launched < 20
    # The first one took the place of r1, as it had passed its first check.
    assert scene.serving() == ["r2"]
    assert standing(scene, Standing()).status is DeploymentStatus.DEPLOY_FAILED


# Silence


def test_a_replica_that_reports_is_never_suspected() -> None:
    scene = heard()
    for _ in range(50):
        assert scene.look(after_s=10) == []
        scene.hear("r1")


def test_a_silent_replica_is_suspected_then_retired() -> None:
    scene = heard()
    assert scene.plan().look_again_at == pytest.approx(scene.now + SILENCE_S)
    assert scene.look(after_s=SILENCE_S - 1) == []
    assert scene.look(after_s=1) == ["suspect r1"]
    assert scene.plan().look_again_at == pytest.approx(scene.now + SILENCE_GRACE_S)
    assert scene.look(after_s=SILENCE_GRACE_S) == ["retire r1", "start r2"]
    assert scene.view.last_failure.startswith("Nothing was heard of it for 1")


def test_what_was_on_its_way_to_a_controller_that_was_held_up_clears_everybody() -> None:
    scene = heard(2)
    assert scene.look(after_s=10 * SILENCE_S) == ["suspect r1", "suspect r2"]
    scene.hear("r1", "r2")
    assert scene.look(after_s=SILENCE_GRACE_S) == []


@pytest.mark.parametrize(
    ("period_s", "timeout_s", "allowed_s"), [(10, 30, 123), (0.1, 0.1, MIN_SILENCE_S), (3600, 30, 11_970)]
)
def test_silence_is_measured_by_the_period_but_never_short(period_s: float, timeout_s: float, allowed_s: float) -> None:
    assert silence_allowed_s(period_s, timeout_s) == pytest.approx(allowed_s)


# A held loop


def test_a_replica_whose_loop_is_held_is_busy_not_dead() -> None:
    scene = heard()
    for held_s in range(10, int(LOOP_HELD_LIMIT_S), 10):
        scene.hear("r1", reason="in crunch", loop_held_s=held_s)
        assert scene.look(after_s=10) == []
    scene.hear("r1")
    assert scene.look() == []


def test_a_loop_that_is_held_for_ever_is_given_up() -> None:
    scene = heard()
    scene.hear("r1", reason="in crunch", loop_held_s=LOOP_HELD_LIMIT_S)
    assert scene.look() == ["retire r1", "start r2"]
    assert scene.view.last_failure == "Its event loop has been held by user code for 900 s.\nin crunch"


# Cost


def test_a_report_that_says_nothing_new_is_no_reason_to_look() -> None:
    scene = heard()

    def looked(failures: int) -> bool:
        replica = scene.replica("r1").id
        return bool(scene.observed.apply(ReplicaHeard(replica, failures, "", 0.0), scene.now))

    assert [looked(failures) for failures in (0, 0, 1, 1, 0, 0)] == [False, False, True, False, True, False]
