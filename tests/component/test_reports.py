"""Reports of replicas on their way to callers and to the status."""

from collections.abc import AsyncIterator

import pytest

from salver.schema.ids import ReplicaID
from salver.schema.messages import Deploy, GetStatus, ReplicaReady, ReplicaReport, StatusReport
from salver.schema.status import ReplicaDetails
from salver.schema.topics import STATUS_TOPIC, Replicas
from tests.component.control import Plane, rest
from tests.unit.controller.scene import ID, application, deployment


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane() as each:
        yield each


async def running(plane: Plane, replicas: int) -> list[ReplicaID]:
    """Run a deployment; return its replicas."""
    await plane.ask(Deploy(application(deployment(num_replicas=replicas))))
    await plane.until_status("RUNNING")
    return sorted(plane.plane.observed.view(ID).replicas)


def report(plane: Plane, replica: ReplicaID, *model_ids: str) -> None:
    peer = plane.replicas[f"Model#{replica.unique_id}"].peer
    peer.tell(ReplicaReport(replica=replica, multiplexed_model_ids=model_ids))


def models(value: Replicas) -> list[tuple[str, ...]]:
    return [each.multiplexed_model_ids for each in value.replicas]


async def test_callers_hear_which_models_replicas_hold(plane: Plane) -> None:
    replicas = await running(plane, 2)
    values = plane.watch_replicas()
    await rest()
    report(plane, replicas[1], "a", "b")
    await plane.pass_time(0.1)
    assert models(values[-1]) == [(), ("a", "b")]


async def test_many_changes_are_one_push(plane: Plane) -> None:
    replicas = await running(plane, 5)
    values = plane.watch_replicas()
    await rest()
    before = len(values)
    for number in range(100):
        for each in replicas:
            report(plane, each, str(number))
    await rest()
    assert len(values) == before
    await plane.pass_time(0.1)
    assert [models(each) for each in values[before:]] == [[("99",)] * 5]


async def test_the_same_report_again_is_no_push(plane: Plane) -> None:
    replicas = await running(plane, 1)
    values = plane.watch_replicas()
    for _ in range(3):
        report(plane, replicas[0], "a")
        await plane.pass_time(0.1)
    assert [models(each) for each in values] == [[()], [("a",)]]


async def test_reports_push_no_status(plane: Plane) -> None:
    replicas = await running(plane, 1)
    statuses = plane.watch(STATUS_TOPIC)
    await rest()
    before = len(statuses)
    report(plane, replicas[0], "a")
    await plane.pass_time(1.0)
    assert len(statuses) == before


async def test_the_status_shows_each_replica(plane: Plane) -> None:
    replica = (await running(plane, 1))[0]
    plane.replicas[f"Model#{replica.unique_id}"].peer.tell(
        ReplicaReport(
            replica=replica,
            multiplexed_model_ids=("a",),
            routing_stats={"load": 1.0},
            autoscaling_stats={"queue": 2.0},
            metadata={"zone": "north"},
        )
    )
    await rest()
    answer = await plane.ask(GetStatus(), StatusReport)
    shown: list[ReplicaDetails] = list(answer.status.applications["shop"].deployments["Model"].replicas)
    assert [each.replica_id for each in shown] == [replica.unique_id]
    assert (shown[0].state.value, shown[0].multiplexed_model_ids) == ("RUNNING", ("a",))
    assert (shown[0].routing_stats, shown[0].metadata) == ({"load": 1.0}, {"zone": "north"})
    assert plane.plane.observed.view(ID).replicas[replica].autoscaling_stats == {"queue": 2.0}


async def test_what_a_replica_says_before_it_is_ready_is_in_its_first_entry(plane: Plane) -> None:
    plane.mute.add("v1")
    await plane.ask(Deploy(application(deployment())))
    await plane.until(lambda: plane.replicas, "a replica")
    values = plane.watch_replicas()
    replica = next(iter(plane.plane.observed.view(ID).replicas))
    report(plane, replica, "a")
    plane.replicas[f"Model#{replica.unique_id}"].peer.tell(ReplicaReady(replica, "memory:r"))
    await plane.until_status("RUNNING")
    await rest()
    assert [models(each) for each in values] == [[], [("a",)]]


async def test_a_thousand_replicas_that_change_all_the_time_do_not_flood_their_callers(plane: Plane) -> None:
    replicas = await running(plane, 1000)
    values = plane.watch_replicas()
    await rest()
    before = len(values)
    for tenth in range(20):
        for each in replicas:
            report(plane, each, str(tenth))
        await plane.pass_time(0.1)
    assert 1 <= len(values) - before <= 2
    # Each push was of all that was known by then, and what came after it is published too.
    await plane.pass_time(1.0)
    assert set(models(values[-1])) == {("19",)}
