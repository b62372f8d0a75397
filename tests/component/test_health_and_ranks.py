"""Replicas that tell how they fare, and are told which one they are."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from salver.controller.health import SILENCE_GRACE_S, silence_allowed_s
from salver.controller.loop import ControlLoop
from salver.schema.ids import DeploymentID
from salver.schema.messages import Deploy
from salver.schema.status import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from tests.component.control import Plane, rest
from tests.unit.controller.scene import application, deployment


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane({"here": {"CPU": 4.0}, "there": {"CPU": 4.0}}) as each:
        yield each


async def running(plane: Plane, replicas: int, version: str = "v1", **options: Any) -> None:
    await plane.ask(Deploy(application(deployment(num_replicas=replicas, **options), version=version)))
    await plane.until_status("RUNNING")
    await rest()


async def test_an_unhealthy_replica_leaves_the_routes_at_once_is_drained_and_replaced(plane: Plane) -> None:
    replicas = plane.watch_replicas()
    await running(plane, 2)
    ill, well = plane.running()
    plane.replicas[ill].hangs = True
    for failures in (1, 2):
        plane.tell_health(ill, failures)
    await rest()
    assert plane.deployment().status is DeploymentStatus.HEALTHY
    plane.tell_health(ill, 3)
    await plane.until(lambda: plane.launches["Model"] == 3, "a replacement")
    await plane.replicas[ill].drained.wait()
    await rest()
    assert f"memory:{ill}" not in {each.address for each in replicas[-1].replicas}
    assert len(replicas[-1].replicas) == 2
    shown = plane.deployment()
    assert (shown.status, shown.status_trigger) == (
        DeploymentStatus.UNHEALTHY,
        DeploymentStatusTrigger.HEALTH_CHECK_FAILED,
    )
    assert plane.status() == "UNHEALTHY"
    assert shown.replica_states == {ReplicaState.RUNNING: 2, ReplicaState.STOPPING: 1}
    await plane.pass_time(20)
    await plane.until(lambda: ill not in plane.running(), "an end of the ill one")
    await plane.until_status("RUNNING")
    assert plane.deployment().status is DeploymentStatus.HEALTHY
    assert well in plane.running()


async def test_checks_that_fail_now_and_then_change_nothing(plane: Plane) -> None:
    await running(plane, 1)
    [process] = plane.running()
    for failures in (1, 2, 0, 1, 2, 0):
        plane.tell_health(process, failures)
        await rest()
    assert plane.deployment().status is DeploymentStatus.HEALTHY
    assert plane.running() == [process]


async def test_a_replica_that_falls_silent_is_replaced(plane: Plane) -> None:
    await running(plane, 1)
    [process] = plane.running()
    plane.tell_health(process, 0)
    await plane.pass_time(silence_allowed_s(10, 30))
    assert plane.running() == [process]
    await plane.pass_time(SILENCE_GRACE_S)
    await plane.until(lambda: plane.launches["Model"] == 2, "a replacement")
    await plane.until(lambda: process not in plane.running(), "an end of the silent one")


async def test_reports_of_healthy_replicas_decide_nothing(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    await running(plane, 2)
    for process in plane.running():
        plane.tell_health(process, 0)
    await rest()
    decided: list[DeploymentID] = []
    decide = ControlLoop._decide

    def counted(loop: ControlLoop, each: DeploymentID, now: float) -> Any:
        decided.append(each)
        return decide(loop, each, now)

    monkeypatch.setattr(ControlLoop, "_decide", counted)
    for _ in range(100):
        for process in plane.running():
            plane.tell_health(process, 0)
        await plane.pass_time(10)
    # One look whenever the deadline of old comes, which was put off meanwhile.
    assert len(decided) <= 2 * 1000 / silence_allowed_s(10, 30)
    assert plane.deployment().status is DeploymentStatus.HEALTHY


async def test_replicas_are_told_their_ranks_over_all_nodes_and_on_each(plane: Plane) -> None:
    await running(plane, 4)
    ranks = [each.ranks[-1] for each in plane.replicas.values()]
    assert sorted(each.rank.rank for each in ranks) == [0, 1, 2, 3]
    assert {each.world_size for each in ranks} == {4}
    by_node: dict[int, list[int]] = {}
    for each in ranks:
        by_node.setdefault(each.rank.node_rank, []).append(each.rank.local_rank)
    assert sorted(by_node) == list(range(len(by_node)))
    assert all(sorted(local) == list(range(len(local))) for local in by_node.values())


async def test_the_replacement_of_a_dead_replica_has_its_rank_and_nobody_else_hears_of_it(plane: Plane) -> None:
    await running(plane, 3)
    first, second, third = plane.replicas
    plane.engine.die(second)
    await plane.until(lambda: len(plane.running()) == 3 and second not in plane.running(), "a replacement")
    await rest()
    [new] = set(plane.running()) - {first, third}
    assert [each.rank.rank for each in plane.replicas[new].ranks] == [1]
    assert [len(plane.replicas[each].ranks) for each in (first, third)] == [1, 1]


async def test_a_reconfigure_that_raises_at_a_change_of_rank_replaces_the_replica(plane: Plane) -> None:
    await running(plane, 2)
    for each in plane.replicas.values():
        each.fails_to_reconfigure = "Traceback …\nValueError: this rank is too high"
    before = plane.running()
    await plane.ask(Deploy(application(deployment(num_replicas=3))))
    await plane.until(lambda: not set(before) & set(plane.running()), "an end of these replicas")
    # Two that end so young are not replaced at once.
    await plane.pass_time(1.0)
    await plane.until(lambda: len(plane.running()) == 3, "other replicas")
    assert plane.launches["Model"] == 5
