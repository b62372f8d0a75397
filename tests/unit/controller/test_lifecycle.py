"""The life of a replica as a table."""

import pytest

from salver.controller.lifecycle import NEXT, SHOWN_AS, STOP_GRACE_S, Stage, Step, after, killed_at
from salver.schema.status import ReplicaState


@pytest.mark.parametrize(
    ("stage", "step", "then"),
    [
        (Stage.STARTING, Step.READY, Stage.RUNNING),
        (Stage.STARTING, Step.FAIL, Stage.STOPPING),
        (Stage.STARTING, Step.STOP, Stage.STOPPING),
        (Stage.RUNNING, Step.DRAIN, Stage.DRAINING),
        (Stage.RUNNING, Step.STOP, Stage.STOPPING),
        (Stage.DRAINING, Step.STOP, Stage.STOPPING),
        (Stage.STARTING, Step.KILL, Stage.KILLED),
        (Stage.RUNNING, Step.KILL, Stage.KILLED),
        (Stage.DRAINING, Step.KILL, Stage.KILLED),
        (Stage.STOPPING, Step.KILL, Stage.KILLED),
    ],
    ids=lambda each: str(each.value),
)
def test_a_step_leads_on(stage: Stage, step: Step, then: Stage) -> None:
    assert after(stage, step) is then


@pytest.mark.parametrize(
    ("stage", "step"),
    [(stage, step) for stage in Stage for step in Step if (stage, step) not in NEXT],
    ids=lambda each: str(each.value),
)
def test_a_step_that_comes_too_late_changes_nothing(stage: Stage, step: Step) -> None:
    assert after(stage, step) is None


def test_nobody_comes_back_to_an_earlier_stage() -> None:
    order = list(Stage)
    assert all(order.index(then) > order.index(stage) for (stage, _), then in NEXT.items())


def test_every_stage_but_the_last_has_a_way_on() -> None:
    assert {stage for stage, _ in NEXT} == set(Stage) - {Stage.KILLED}


def test_every_stage_is_shown_to_users_as_one_of_theirs() -> None:
    assert set(SHOWN_AS) == set(Stage)
    assert set(SHOWN_AS.values()) == set(ReplicaState)


def test_a_draining_replica_has_as_long_as_its_options_say() -> None:
    assert killed_at(Stage.DRAINING, 100.0, 20.0, None) == 120.0


def test_a_stopping_replica_has_a_short_grace_at_least() -> None:
    assert killed_at(Stage.STOPPING, 100.0, 20.0, None) == 100.0 + STOP_GRACE_S
    assert killed_at(Stage.STOPPING, 119.0, 20.0, 120.0) == 119.0 + STOP_GRACE_S


def test_what_is_left_of_the_time_to_drain_is_there_for_the_finalizer_too() -> None:
    assert killed_at(Stage.STOPPING, 101.0, 20.0, 120.0) == 120.0


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.RUNNING, Stage.KILLED])
def test_other_stages_have_no_end_of_their_own(stage: Stage) -> None:
    assert killed_at(stage, 100.0, 20.0, 130.0) is None
