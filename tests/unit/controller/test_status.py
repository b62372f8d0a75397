"""Statuses as users read them."""

import pytest

from salver.controller.reconcile import SLOW_START_S
from salver.controller.status import NEXT, Sign, Standing, application_standing, asked, next_standing
from salver.schema.status import ApplicationStatus
from salver.schema.status import DeploymentStatus as D
from salver.schema.status import DeploymentStatusTrigger as T
from tests.unit.controller.scene import Scene, running, wish

HEALTHY = Standing(D.HEALTHY, T.CONFIG_UPDATE_COMPLETED)


def standing(scene: Scene, before: Standing = HEALTHY) -> Standing:
    """Return the status after a look."""
    return next_standing(before, scene.wish, scene.view, scene.now)


def brief(each: Standing) -> tuple[D, T]:
    return each.status, each.trigger


ROWS = [
    # sign, then what it leads to from UPDATING, UPSCALING, DOWNSCALING, HEALTHY, UNHEALTHY, DEPLOY_FAILED
    (
        Sign.HEALTHY,
        (D.HEALTHY, T.CONFIG_UPDATE_COMPLETED),
        (D.HEALTHY, T.UPSCALE_COMPLETED),
        (D.HEALTHY, T.DOWNSCALE_COMPLETED),
        None,
        (D.HEALTHY, T.UNSPECIFIED),
        (D.HEALTHY, T.UNSPECIFIED),
    ),
    (Sign.CONFIG_UPDATE, *[(D.UPDATING, T.CONFIG_UPDATE_STARTED)] * 6),
    (
        Sign.REPLICA_DIED,
        (D.DEPLOY_FAILED, T.HEALTH_CHECK_FAILED),
        (D.UNHEALTHY, T.HEALTH_CHECK_FAILED),
        (D.UNHEALTHY, T.HEALTH_CHECK_FAILED),
        (D.UNHEALTHY, T.HEALTH_CHECK_FAILED),
        (D.UNHEALTHY, T.HEALTH_CHECK_FAILED),
        (D.DEPLOY_FAILED, T.HEALTH_CHECK_FAILED),
    ),
    (
        Sign.REPLICA_STARTUP_FAILED,
        (D.DEPLOY_FAILED, T.REPLICA_STARTUP_FAILED),
        (D.UNHEALTHY, T.REPLICA_STARTUP_FAILED),
        (D.UNHEALTHY, T.REPLICA_STARTUP_FAILED),
        None,
        (D.UNHEALTHY, T.REPLICA_STARTUP_FAILED),
        (D.DEPLOY_FAILED, T.REPLICA_STARTUP_FAILED),
    ),
    (Sign.DELETE, *[(D.UPDATING, T.DELETING)] * 6),
]
BEFORE = [D.UPDATING, D.UPSCALING, D.DOWNSCALING, D.HEALTHY, D.UNHEALTHY, D.DEPLOY_FAILED]


@pytest.mark.parametrize(
    ("sign", "before", "then"),
    [(row[0], before, then) for row in ROWS for before, then in zip(BEFORE, row[1:], strict=True)],
    ids=lambda each: str(getattr(each, "value", "")),
)
def test_every_row_of_the_contract(sign: Sign, before: D, then: tuple[D, T] | None) -> None:
    assert NEXT.get((before, sign)) == then


def test_the_table_has_a_row_for_every_sign() -> None:
    assert {sign for _, sign in NEXT} == set(Sign) == {row[0] for row in ROWS}


def test_a_new_deployment_is_updating() -> None:
    scene = Scene(wish(1))
    scene.look()
    assert standing(scene, asked(None, scene.wish)) == Standing(D.UPDATING, T.CONFIG_UPDATE_STARTED)


def test_a_deployment_is_healthy_once_all_replicas_run_and_nobody_leaves() -> None:
    scene = running(2)
    assert brief(standing(scene, Standing())) == (D.HEALTHY, T.CONFIG_UPDATE_COMPLETED)
    scene.want(wish(2, "v2"))
    before = asked(HEALTHY, scene.wish)
    scene.look()
    scene.ready("r3")
    scene.look()
    scene.ready("r4")
    scene.look()
    assert standing(scene, before).status is D.UPDATING
    scene.leave("r1", "r2")
    assert standing(scene, before).status is D.HEALTHY


def test_a_deployment_without_replicas_is_healthy_if_none_are_wanted() -> None:
    assert standing(Scene(wish(0)), Standing()).status is D.HEALTHY


def test_a_running_replica_that_dies_makes_it_unhealthy_until_it_is_replaced() -> None:
    scene = running(2)
    scene.exit("r1", how="r1 was killed by SIGKILL")
    scene.look()
    unhealthy = standing(scene)
    assert unhealthy == Standing(
        D.UNHEALTHY, T.HEALTH_CHECK_FAILED, "A replica died and is being replaced: r1 was killed by SIGKILL"
    )
    scene.ready("r3")
    assert standing(scene, unhealthy) == Standing(D.HEALTHY, T.UNSPECIFIED)


def test_a_replica_that_dies_in_an_update_fails_the_deploy_until_it_is_replaced() -> None:
    scene = Scene(wish(2))
    scene.look()
    scene.ready("r1")
    scene.exit("r1")
    assert brief(standing(scene, Standing())) == (D.DEPLOY_FAILED, T.HEALTH_CHECK_FAILED)


def test_an_old_replica_that_dies_in_an_update_is_no_failure_of_it() -> None:
    scene = running(2)
    scene.want(wish(2, "v2"))
    scene.look()
    scene.exit("r1")
    assert brief(standing(scene, asked(HEALTHY, scene.wish))) == (D.UPDATING, T.CONFIG_UPDATE_STARTED)


def test_retries_are_counted_down_with_the_users_traceback() -> None:
    scene = Scene(wish(2))
    scene.look()
    scene.fail("r1", reason="Traceback …\nValueError: boom")
    assert standing(scene, Standing()).message == (
        "A replica failed to start with exception. Retrying 5 more time(s). Error:\nTraceback …\nValueError: boom"
    )


def test_a_first_deploy_that_is_given_up_has_failed_and_says_why() -> None:
    scene = Scene(wish(1))
    for number in (1, 2, 3):
        scene.look()
        scene.fail(f"r{number}", reason="ValueError: boom")
    assert standing(scene, Standing()) == Standing(
        D.DEPLOY_FAILED,
        T.REPLICA_STARTUP_FAILED,
        "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or "
        "initial health check failing. Error:\nValueError: boom",
    )


def test_an_update_that_is_given_up_says_that_the_old_version_serves_on() -> None:
    scene = running(1)
    scene.want(wish(1, "v2"))
    for number in (2, 3, 4):
        scene.look()
        scene.fail(f"r{number}")
    failed = standing(scene, asked(HEALTHY, scene.wish))
    assert failed.status is D.DEPLOY_FAILED
    assert "3 times in a row during a rolling update; replicas of the old version serve on." in failed.message


def test_a_deploy_of_which_one_replica_runs_and_the_others_never_start_ends_in_a_failure_too() -> None:
    scene = Scene(wish(2))
    scene.look()
    scene.ready("r1")
    for number in range(2, 8):
        scene.fail(f"r{number}")
        scene.look(after_s=10)
    failed = standing(scene, Standing())
    assert brief(failed) == (D.DEPLOY_FAILED, T.REPLICA_STARTUP_FAILED)
    assert failed.message.startswith("A replica failed to start with exception. Retrying. Error:")


def test_replacements_that_do_not_start_keep_it_unhealthy() -> None:
    scene = running(1)
    scene.exit("r1")
    unhealthy = standing(scene)
    for number in (2, 3, 4):
        scene.look(after_s=10)
        scene.fail(f"r{number}")
    assert brief(standing(scene, unhealthy)) == (D.UNHEALTHY, T.REPLICA_STARTUP_FAILED)


def test_a_deployment_that_goes_is_deleting() -> None:
    scene = running(1)
    scene.want(None)
    scene.look()
    assert standing(scene) == Standing(D.UPDATING, T.DELETING)
    assert asked(HEALTHY, None) == Standing(D.UPDATING, T.DELETING)


def test_a_shortage_is_said_at_once_and_said_louder_when_it_lasts() -> None:
    scene = Scene(wish(2))
    scene.look()
    scene.refuse("r1", "r2", reason="needs 1 GPU, 0 free")
    assert standing(scene, Standing()).message == "Waiting for resources: needs 1 GPU, 0 free"
    scene.now += SLOW_START_S
    assert standing(scene, Standing()).message == (
        "Deployment(name='Model', app='shop') has 2 replicas that have taken more than 30s to be scheduled. "
        "needs 1 GPU, 0 free"
    )


def test_a_shortage_that_no_longer_matters_is_not_mentioned() -> None:
    scene = running(1)
    scene.want(wish(2))
    scene.look()
    scene.refuse("r2")
    scene.want(wish(1))
    assert standing(scene) == HEALTHY


def test_a_slow_constructor_is_mentioned() -> None:
    scene = Scene(wish(1))
    scene.look()
    assert standing(scene, Standing()).message == ""
    scene.now += SLOW_START_S
    assert standing(scene, Standing()).message == (
        "Deployment(name='Model', app='shop') has 1 replica that has taken more than 30s to initialize. "
        "This may be caused by a slow __init__ or reconfigure method."
    )


FAILED, UNHEALTHY = Standing(D.DEPLOY_FAILED, T.REPLICA_STARTUP_FAILED), Standing(D.UNHEALTHY, T.HEALTH_CHECK_FAILED)
UPDATING = Standing()
SCALING, AUTOSCALING = Standing(D.UPSCALING, T.CONFIG_UPDATE_STARTED), Standing(D.DOWNSCALING, T.AUTOSCALING)


@pytest.mark.parametrize(
    ("standings", "status", "message"),
    [
        ([HEALTHY, FAILED, UNHEALTHY], ApplicationStatus.DEPLOY_FAILED, "Failed to update the deployments ['D1']."),
        ([UNHEALTHY, UPDATING], ApplicationStatus.UNHEALTHY, "The deployments ['D0'] are UNHEALTHY."),
        ([HEALTHY, UPDATING], ApplicationStatus.DEPLOYING, ""),
        ([HEALTHY, SCALING], ApplicationStatus.DEPLOYING, ""),
        ([HEALTHY, AUTOSCALING], ApplicationStatus.RUNNING, ""),
        ([HEALTHY, HEALTHY], ApplicationStatus.RUNNING, ""),
    ],
    ids=["failed", "unhealthy", "updating", "scaling", "autoscaling", "healthy"],
)
def test_the_worst_deployment_decides_about_the_application(
    standings: list[Standing], status: ApplicationStatus, message: str
) -> None:
    named = [(f"D{number}", each) for number, each in enumerate(standings)]
    assert application_standing(named) == (status, message)
