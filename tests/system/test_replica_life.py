"""The life of real replicas: hooks and their order, health checks, ranks."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import salver as serve
from salver.schema.status import ApplicationStatus, ApplicationStatusOverview, DeploymentStatus
from tests.system import life_deployments as deployments
from tests.system.load import Load
from tests.system.serving import new_place
from tests.waiting import wait_until_sync

WITHIN_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One instance of this test process, for all tests of the module."""
    path: Path = tmp_path_factory.mktemp("life")
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        from salver.api.driver import find_driver

        driver = find_driver()
        assert driver is not None
        yield driver.instance.http_url or ""
        serve.shutdown()
        assert place.leftovers() == []


def status(name: str) -> ApplicationStatusOverview:
    return serve.status().applications[name]


def until_healthy(name: str) -> None:
    wait_until_sync(
        lambda: all(each.status is DeploymentStatus.HEALTHY for each in status(name).deployments.values()),
        within_s=WITHIN_S,
        what=f"{name} healthy",
    )


def test_an_unhealthy_replica_is_replaced_under_load_and_no_request_fails(url: str) -> None:
    handle = serve.run(deployments.Patient.bind(), name="patient", route_prefix="/")
    with Load(url, clients=4) as load:
        load.go_on(200)
        ill = handle.fall_ill.remote().result(timeout_s=WITHIN_S)
        wait_until_sync(
            lambda: status("patient").status is ApplicationStatus.UNHEALTHY, within_s=WITHIN_S, what="an ill deployment"
        )
        message = status("patient").deployments["Patient"].message
        until_healthy("patient")
        load.go_on(200)
    before = set(load.answers)
    with Load(url, clients=4) as load_after:
        load_after.go_on(200)
    assert load.lost == load_after.lost == []
    assert all(len(each) == len(ill) for each in before | set(load_after.answers))
    assert ill.encode() in before
    assert ill.encode() not in load_after.answers
    assert len(load_after.answers) == 2
    assert message.startswith("A replica's health check failed. This deployment will be UNHEALTHY until")
    assert "ValueError: no heart beat" in message
    assert status("patient").status is ApplicationStatus.RUNNING
    serve.delete("patient")


def test_checks_that_fail_twice_in_a_row_do_nothing() -> None:
    handle = serve.run(deployments.Flapping.bind(), name="flapping", route_prefix=None)
    first, _ = handle.look.remote().result()
    wait_until_sync(lambda: handle.look.remote().result()[1] > 30, within_s=WITHIN_S, what="many checks")
    assert handle.look.remote().result()[0] == first
    assert status("flapping").status is ApplicationStatus.RUNNING


def test_a_check_that_hangs_is_a_failed_one() -> None:
    handle = serve.run(deployments.Hanging.bind(), name="hanging", route_prefix=None)
    hung = handle.hang.remote().result()
    wait_until_sync(
        lambda: handle.look.remote().result(timeout_s=WITHIN_S) != hung, within_s=WITHIN_S, what="a replacement"
    )
    until_healthy("hanging")


def test_a_replica_whose_loop_is_held_is_not_replaced() -> None:
    handle = serve.run(deployments.Blocking.bind(), name="blocking", route_prefix=None)
    first, checks = handle.look.remote().result()
    assert handle.block.remote().result(timeout_s=WITHIN_S) == first
    wait_until_sync(lambda: handle.look.remote().result()[1] > checks + 10, within_s=WITHIN_S, what="more checks")
    assert handle.look.remote().result()[0] == first
    assert status("blocking").status is ApplicationStatus.RUNNING


def test_a_first_check_that_fails_is_a_failed_start() -> None:
    with pytest.raises(RuntimeError, match="ill-from-birth failed"):
        serve.run(deployments.IllFromBirth.bind(), name="ill-from-birth", route_prefix=None)
    shown = status("ill-from-birth").deployments["IllFromBirth"]
    assert shown.status is DeploymentStatus.DEPLOY_FAILED
    assert "ValueError: ill from birth" in shown.message


def test_hooks_run_in_their_order() -> None:
    handle = serve.run(deployments.Hooked.bind(), name="hooked", route_prefix=None)
    assert handle.look.remote().result()[:4] == ["__init__", "lifespan", "reconfigure", "check_health"]
    wait_until_sync(lambda: len(handle.look.remote().result()) > 8, within_s=WITHIN_S, what="more checks")
    assert set(handle.look.remote().result()[4:]) == {"check_health"}


def looks(handle: Any) -> dict[int, dict[str, Any]]:
    """Return what all three replicas say, by rank."""

    def everybody() -> dict[int, dict[str, Any]] | None:
        found = {each["rank"]: each for each in [handle.look.remote().result() for _ in range(30)]}
        return found if sorted(found) == [0, 1, 2] and len({each["pid"] for each in found.values()}) == 3 else None

    found = wait_until_sync(everybody, within_s=WITHIN_S, what="three ranks")
    assert found is not None
    return found


def test_ranks_count_from_zero_and_a_successor_takes_the_rank_that_is_free() -> None:
    handle = serve.run(deployments.Ranked.bind(), name="ranked", route_prefix=None)
    before = looks(handle)
    assert {rank: each["first_rank"] for rank, each in before.items()} == {0: 0, 1: 1, 2: 2}
    assert {rank: each["local_rank"] for rank, each in before.items()} == {0: 0, 1: 1, 2: 2}
    assert all(each["world_size"] == 3 for each in before.values())
    assert all(each["calls"] == [({"a": 1}, rank)] for rank, each in before.items())
    os.kill(before[1]["pid"], signal.SIGKILL)
    until_healthy("ranked")
    after = looks(handle)
    assert after[1]["pid"] != before[1]["pid"]
    assert {rank: after[rank]["pid"] for rank in (0, 2)} == {rank: before[rank]["pid"] for rank in (0, 2)}


def test_after_an_update_ranks_are_dense_again_and_who_got_another_is_reconfigured() -> None:
    serve.run(deployments.Ranked.bind(), name="ranked", route_prefix=None)
    handle = serve.run(deployments.Ranked.bind(), name="ranked", route_prefix=None)
    until_healthy("ranked")
    found = looks(handle)
    wait_until_sync(
        lambda: all(each["calls"][-1] == ({"a": 1}, rank) for rank, each in looks(handle).items()),
        within_s=WITHIN_S,
        what="everybody reconfigured",
    )
    moved = [each for rank, each in found.items() if each["first_rank"] != rank]
    assert all(len(each["calls"]) >= 2 for each in moved)
