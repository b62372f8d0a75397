"""The control plane as its neighbours see it: wishes in, processes, snapshots and statuses out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from salver.controller.desired import Wish
from salver.controller.events import ReplicaReadied
from salver.controller.observed import View
from salver.controller.reconcile import Plan, reconcile
from salver.engine.base import ProcessSpec
from salver.schema.errors import StartFailed
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import (
    ApplicationFound,
    Delete,
    Deploy,
    Done,
    FindApplication,
    GetStatus,
    NodeReport,
    ReplicaFailed,
    Shutdown,
    StatusReport,
    Unsubscribe,
)
from salver.schema.status import DeploymentStatusTrigger, ReplicaState
from salver.schema.topics import ROUTES_TOPIC, STATUS_TOPIC, Replicas
from salver.transport.peer import Refused
from tests.component.control import Plane, rest, statuses
from tests.unit.controller.scene import application, deployment


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane() as each:
        yield each


def shop(replicas: int = 1, version: str = "v1", **options: Any) -> Deploy:
    """Return an order to deploy."""
    return Deploy(application(deployment(num_replicas=replicas, **options), version=version))


async def running(plane: Plane, replicas: int = 1, **options: Any) -> None:
    """Deploy, and wait until it runs."""
    await plane.ask(shop(replicas, **options))
    await plane.until_status("RUNNING")


async def test_an_application_is_deployed_and_everybody_hears_of_it(plane: Plane) -> None:
    status, routes, replicas = plane.watch(STATUS_TOPIC), plane.watch(ROUTES_TOPIC), plane.watch_replicas()
    await rest()
    await plane.ask(shop(2, max_ongoing_requests=7))
    await plane.until(lambda: statuses(status)[-1] == "RUNNING", "a running application")
    assert statuses(status) == ["", "DEPLOYING", "RUNNING"]
    assert [len(each.routes) for each in routes] == [0, 1]
    assert replicas[0].unavailable == "it does not exist"
    assert replicas[1] == Replicas()
    assert [each.max_ongoing_requests for each in replicas[-1].replicas] == [7, 7]
    assert {each.address for each in replicas[-1].replicas} == {f"memory:{name}" for name in plane.running()}


async def test_the_status_is_that_of_the_new_wish_before_the_wish_is_acknowledged(plane: Plane) -> None:
    await running(plane)
    plane.mute.add("v2")
    await plane.ask(shop(version="v2"))
    assert plane.status() == "DEPLOYING"


async def test_the_status_can_be_asked_for(plane: Plane) -> None:
    await running(plane, 2)
    report = await plane.ask(GetStatus(), StatusReport)
    shown = report.status.applications["shop"].deployments["Model"]
    assert shown.replica_states == {ReplicaState.RUNNING: 2}
    assert shown.status_trigger is DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED


async def test_an_application_is_found_by_name(plane: Plane) -> None:
    await running(plane)
    found = await plane.ask(FindApplication("shop"), ApplicationFound)
    assert found == ApplicationFound(DeploymentID("Model", "shop"), ("Model",))
    assert await plane.ask(FindApplication("other"), ApplicationFound) == ApplicationFound(None)


async def test_a_wish_is_saved_before_it_is_acknowledged(plane: Plane) -> None:
    await plane.ask(shop())
    assert plane.store.keys() == ["application/shop"]
    await plane.ask(Delete("shop"))
    assert plane.store.keys() == []


async def test_a_constructor_that_raises_fails_the_deploy_after_three_attempts_for_each_replica(plane: Plane) -> None:
    plane.broken["v1"] = "Traceback …\nValueError: boom"
    status, replicas = plane.watch(STATUS_TOPIC), plane.watch_replicas()
    await plane.ask(shop(2))
    await plane.until_status("DEPLOY_FAILED")
    await plane.until(lambda: not plane.running(), "an end of all attempts")
    assert plane.launches["Model"] == 6
    shown = plane.deployment()
    assert shown.message.startswith("The deployment failed to start 6 times in a row.")
    assert shown.message.endswith("Error:\nTraceback …\nValueError: boom")
    assert replicas[-1].unavailable == "it failed to deploy"
    assert statuses(status)[-2:] == ["DEPLOYING", "DEPLOY_FAILED"]


async def test_a_failed_deploy_may_be_followed_by_a_good_one(plane: Plane) -> None:
    plane.broken["v1"] = "ValueError: boom"
    await plane.ask(shop())
    await plane.until_status("DEPLOY_FAILED")
    await plane.ask(shop(version="v2"))
    await plane.until_status("RUNNING")


async def test_a_process_that_ends_before_it_is_ready_is_a_failed_start(plane: Plane) -> None:
    plane.mute.add("v1")
    await plane.ask(shop())
    for _ in range(3):
        await plane.until(lambda: plane.replicas.keys() & set(plane.running()), "a replica")
        plane.engine.running[plane.running()[0]].say("Segmentation fault")
        plane.engine.die(plane.running()[0], 11)
        await rest()
    await plane.until_status("DEPLOY_FAILED")
    assert "was killed by SIGSEGV\nSegmentation fault" in plane.deployment().message


async def test_an_update_never_serves_with_fewer_replicas_than_are_wanted(plane: Plane) -> None:
    await running(plane, 3)
    serving = plane.watch_replicas()
    await rest()
    before = {each.replica for each in serving[-1].replicas}
    await plane.ask(shop(3, "v2"))
    await plane.until_status("RUNNING")
    assert all(len(each.replicas) >= 3 for each in serving)
    assert not before & {each.replica for each in serving[-1].replicas}
    assert len(plane.running()) == 3


async def test_a_failed_update_leaves_the_old_version_serving(plane: Plane) -> None:
    await running(plane, 2)
    before = plane.running()
    plane.broken["v2"] = "ValueError: boom"
    await plane.ask(shop(2, "v2"))
    await plane.until_status("DEPLOY_FAILED")
    await plane.until(lambda: plane.running() == before, "only the old replicas")
    assert "replicas of the old version serve on" in plane.deployment().message
    assert len(plane.watch_replicas()) == 0
    await rest()
    assert len(plane.driver.values["replicas/shop/Model"][-1].replicas) == 2


async def test_a_second_deploy_overtakes_the_first_while_it_starts(plane: Plane) -> None:
    plane.mute.add("v1")
    await plane.ask(shop(2))
    await plane.until(lambda: len(plane.running()) == 2, "the first version's replicas")
    await plane.ask(shop(2, "v2"))
    await plane.until_status("RUNNING")
    assert len(plane.running()) == 2


async def test_a_dead_replica_is_replaced(plane: Plane) -> None:
    await running(plane, 2)
    serving = plane.watch_replicas()
    dead = plane.running()[0]
    plane.engine.die(dead)
    await plane.until(lambda: dead not in plane.running() and len(plane.running()) == 2, "a replacement")
    await plane.until_status("RUNNING")
    assert [len(each.replicas) for each in serving][-2:] == [1, 2]


async def test_a_deployment_that_an_update_drops_is_drained_and_does_not_hold_the_application_up(plane: Plane) -> None:
    plane.stubborn.add("v1")
    both = application(deployment("Model"), deployment("Extra", graceful_shutdown_timeout_s=30))
    await plane.ask(Deploy(both))
    await plane.until_status("RUNNING")
    await plane.ask(Deploy(application(deployment("Model", graceful_shutdown_timeout_s=5), version="v2")))
    await plane.until(lambda: len(plane.running("Model")) == 2, "an update")
    await plane.pass_time(20)
    await plane.until_status("RUNNING")
    assert len(plane.running("Extra")) == 1
    await plane.pass_time(20)
    await plane.until(lambda: plane.running("Extra") == [], "an end of the dropped deployment")
    assert list(plane.application().deployments) == ["Model"]  # type: ignore[union-attr]


# Deleting


async def test_a_deleted_application_drains_and_is_gone_when_that_is_answered(plane: Plane) -> None:
    await running(plane, 2)
    status, replicas, routes = plane.watch(STATUS_TOPIC), plane.watch_replicas(), plane.watch(ROUTES_TOPIC)
    await rest()
    callers = list(plane.replicas.values())
    await plane.ask(Delete("shop"))
    assert (plane.running(), plane.status()) == ([], "")
    assert all(each.drained.is_set() for each in callers)
    assert statuses(status) == ["RUNNING", "DELETING", ""]
    assert [each.unavailable for each in replicas] == [None, "its application was deleted", "it does not exist"]
    assert routes[-1].routes == ()


async def test_deleting_an_unknown_application_is_no_error(plane: Plane) -> None:
    await plane.ask(Delete("unknown"))
    assert plane.status("unknown") == ""


async def test_a_replica_that_does_not_finish_is_killed_when_its_time_is_over(plane: Plane) -> None:
    plane.stubborn.add("v1")
    await running(plane, graceful_shutdown_timeout_s=20)
    deleting = plane.start_asking(Delete("shop"))
    await plane.pass_time(19.9)
    assert (plane.status(), len(plane.running()), deleting.done()) == ("DELETING", 1, False)
    await plane.pass_time(0.2)
    await deleting
    assert plane.running() == []


async def test_a_deploy_cancels_the_deletion_of_its_application(plane: Plane) -> None:
    plane.stubborn.add("v1")
    await running(plane)
    deleting = plane.start_asking(Delete("shop"))
    await rest()
    await plane.ask(shop(version="v2"))
    await deleting
    await plane.until(lambda: len(plane.running()) == 2, "a replica of the new version")
    assert plane.status() == "DEPLOYING"
    await plane.pass_time(60)
    await plane.until_status("RUNNING")
    assert len(plane.running()) == 1
    assert plane.store.keys() == ["application/shop"]


async def test_an_application_may_be_deleted_before_it_was_looked_at(plane: Plane) -> None:
    deploying, deleting = plane.start_asking(shop()), plane.start_asking(Delete("shop"))
    await deploying
    await deleting
    await rest()
    assert (plane.status(), plane.running(), plane.store.keys()) == ("", [], [])


async def test_a_deploy_that_a_delete_overtakes_is_refused(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, nodes = asyncio.Event(), plane.engine.nodes

    async def slow_nodes() -> list[NodeReport]:
        await may_go_on.wait()
        return await nodes()

    monkeypatch.setattr(plane.engine, "nodes", slow_nodes)
    deploying: asyncio.Task[Done] = asyncio.ensure_future(plane.ask(shop()))
    await rest()
    await plane.ask(Delete("shop"))
    may_go_on.set()
    with pytest.raises(Refused, match="was deployed anew or deleted while it was being deployed"):
        await deploying
    assert (plane.status(), plane.store.keys()) == ("", [])


async def test_two_applications_fare_apart(plane: Plane) -> None:
    plane.broken["bad"] = "ValueError: boom"
    await plane.ask(Deploy(application(name="good", route_prefix="/good")))
    await plane.ask(Deploy(application(name="bad", version="bad", route_prefix="/bad")))
    await plane.until_status("DEPLOY_FAILED", "bad")
    await plane.until_status("RUNNING", "good")
    with pytest.raises(Refused, match='Prefix /good is being used by application "good"'):
        await plane.ask(Deploy(application(name="third", route_prefix="/good")))
    assert plane.status("third") == ""


async def test_applications_that_are_deployed_together_are_wanted_all_or_none(plane: Plane) -> None:
    await plane.ask(Deploy(application(name="old", route_prefix="/old")))
    good = application(name="good", route_prefix="/good")
    with pytest.raises(Refused, match='Prefix /old is being used by application "old"'):
        await plane.ask(Deploy(good, (application(name="third", route_prefix="/old"),)))
    assert (plane.status("good"), plane.status("third")) == ("", "")
    await plane.ask(Deploy(good, (application(name="third", route_prefix="/third"),)))
    await plane.until_status("RUNNING", "good")
    await plane.until_status("RUNNING", "third")


# Races


async def test_a_start_that_hangs_is_given_up_when_nobody_wants_it(plane: Plane) -> None:
    hanging: list[str] = []

    async def hang(spec: ProcessSpec) -> None:
        hanging.append(spec.name)
        await asyncio.Event().wait()

    plane.engine.before_start = hang
    await plane.ask(shop())
    await plane.until(lambda: hanging, "a start")
    await plane.ask(Delete("shop"))
    assert plane.status() == ""


async def test_a_process_that_appears_although_its_start_was_given_up_is_stopped_at_once(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, signal = asyncio.Event(), plane.engine.signal

    async def late(spec: ProcessSpec) -> None:
        await may_start.wait()

    async def deaf(name: str, *, kill: bool = False) -> None:
        if may_start.is_set():
            await signal(name, kill=kill)

    plane.engine.before_start = late
    monkeypatch.setattr(plane.engine, "signal", deaf)
    await plane.ask(shop())
    deleting = plane.start_asking(Delete("shop"))
    await rest()
    assert not deleting.done()
    may_start.set()
    await deleting
    assert plane.running() == []


async def test_a_constructor_may_fail_before_its_start_is_confirmed(plane: Plane) -> None:
    async def fail_early(spec: ProcessSpec) -> None:
        replica = ReplicaID(spec.name.partition("#")[2], DeploymentID("Model", "shop"))
        plane.plane.executor.hear(ReplicaFailed(replica, "ValueError: early"), plane.driver.peer)
        await asyncio.sleep(0)

    plane.engine.before_start = fail_early
    await plane.ask(shop())
    await plane.until_status("DEPLOY_FAILED")
    await plane.until(lambda: not plane.running(), "an end of all attempts")
    assert plane.deployment().message.endswith("ValueError: early")
    assert "failed to start 3 times" in plane.deployment().message


async def test_a_module_that_cannot_be_imported_fails_the_deploy_with_its_traceback(plane: Plane) -> None:
    plane.engine.broken_modules["shop"] = "Traceback …\nModuleNotFoundError: No module named 'numpy'"
    await plane.ask(shop())
    await plane.until_status("DEPLOY_FAILED")
    assert plane.deployment().message.endswith("No module named 'numpy'")


async def test_what_an_unknown_replica_says_is_ignored(plane: Plane) -> None:
    stranger = ReplicaID("stranger", DeploymentID("Model", "shop"))
    plane.plane.executor.hear(ReplicaFailed(stranger, "ValueError"), plane.driver.peer)
    plane.plane.loop.feed(ReplicaReadied(stranger, "memory:stranger"))
    await rest()
    assert plane.status() == ""


async def test_a_replica_that_refuses_to_drain_is_stopped(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    await running(plane)
    caller = next(iter(plane.replicas.values()))

    async def refuse(*_: object) -> None:
        raise StartFailed("not now")

    monkeypatch.setattr(caller, "on_ask", refuse)
    await plane.ask(Delete("shop"))
    assert plane.running() == []


# Resources


async def test_what_can_never_fit_is_refused_at_once_and_changes_nothing(plane: Plane) -> None:
    await running(plane)
    with pytest.raises(Refused, match="asks for 1 replica × 1 GPU") as refused:
        await plane.ask(shop(version="v2", ray_actor_options={"num_gpus": 1}))
    assert refused.value.kind == "ResourcesUnavailable"
    assert plane.status() == "RUNNING"
    assert plane.application().deployments["Model"].replica_states == {ReplicaState.RUNNING: 1}  # type: ignore[union-attr]


async def test_replicas_wait_for_what_others_use_and_start_when_it_is_free() -> None:
    async with Plane({"fake": {"CPU": 4.0, "GPU": 1.0}}) as plane:
        gpu = deployment(ray_actor_options={"num_gpus": 1})
        await plane.ask(Deploy(application(gpu, name="first")))
        await plane.until_status("RUNNING", "first")
        await plane.ask(Deploy(application(gpu, name="second", route_prefix="/second")))
        await plane.until(lambda: plane.deployment(app="second").message, "a word about it")
        assert plane.deployment(app="second").message.startswith("Waiting for resources: ")
        await plane.pass_time(30)
        assert "taken more than 30s to be scheduled" in plane.deployment(app="second").message
        await plane.ask(Delete("first"))
        await plane.until_status("RUNNING", "second")
        assert plane.deployment(app="second").message == ""


async def test_one_replica_at_a_time_is_replaced_where_there_is_no_room_for_one_more() -> None:
    async with Plane({"fake": {"CPU": 2.0}}, strict_cpus=True) as plane:
        await running(plane, 2)
        serving = plane.watch_replicas()
        await plane.ask(shop(2, "v2"))
        await plane.until_status("RUNNING")
        assert min(len(each.replicas) for each in serving) == 1
        assert len(serving[-1].replicas) == 2


async def test_room_that_was_made_while_a_refusal_was_on_its_way_is_not_missed() -> None:
    async with Plane({"fake": {"CPU": 1.0}}, strict_cpus=True) as plane:
        await plane.ask(Deploy(application(name="first")))
        await plane.until_status("RUNNING", "first")
        start = plane.engine.start
        refused, may_tell = asyncio.Event(), asyncio.Event()

        async def slow_to_tell(spec: ProcessSpec) -> object:
            try:
                return await start(spec)
            except Exception:
                refused.set()
                await may_tell.wait()
                raise

        plane.engine.start = slow_to_tell  # type: ignore[method-assign,assignment]
        await plane.ask(Deploy(application(name="second", route_prefix="/second")))
        await refused.wait()
        await plane.ask(Delete("first"))
        may_tell.set()
        await plane.until_status("RUNNING", "second")


async def test_what_a_failed_start_held_is_free_for_others() -> None:
    async with Plane({"fake": {"CPU": 1.0}}, strict_cpus=True) as plane:
        may_fail = asyncio.Event()

        async def fail_first(spec: ProcessSpec) -> None:
            if spec.preload is not None and spec.preload.working_dir == "/bad":
                await may_fail.wait()
                raise StartFailed("ValueError: boom")

        plane.engine.before_start = fail_first
        bad = application(name="bad", route_prefix=None)
        bad = msgspec.structs.replace(bad, preload=msgspec.structs.replace(bad.preload, working_dir="/bad"))
        await plane.ask(Deploy(bad))
        await plane.ask(Deploy(application()))
        await plane.until(lambda: plane.deployment().message.startswith("Waiting"), "a wait")
        may_fail.set()
        await plane.until_status("RUNNING")


# Cost


async def test_the_cost_of_an_event_does_not_grow_with_what_exists(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions: list[DeploymentID] = []

    def counted(wish: Wish | None, view: View, now: float) -> Plan:
        decisions.append(view.id)
        return reconcile(wish, view, now)

    monkeypatch.setattr("salver.controller.loop.reconcile", counted)
    for number in range(1000):
        await plane.ask(Deploy(application(name=f"app{number}", route_prefix=None)))
    await plane.until(lambda: all(plane.status(f"app{number}") == "RUNNING" for number in (0, 500, 999)), "all")
    await rest()
    decisions.clear()
    published = []
    monkeypatch.setattr(plane.plane.snapshots, "publish", lambda topic, value: published.append(topic))
    [process] = [name for name, each in plane.engine.running.items() if b"app500" in each.spec.payload]
    plane.engine.die(process)
    await plane.until(lambda: process not in plane.running() and plane.launches["Model"] == 1001, "a replacement")
    await plane.until_status("RUNNING", "app500")
    assert set(decisions) == {DeploymentID("Model", "app500")}
    assert len(decisions) < 20
    assert set(published) == {"replicas/app500/Model"}


async def test_nothing_is_decided_while_nothing_happens(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    await running(plane, 2)
    ticks = []
    monkeypatch.setattr(plane.plane.loop, "_decide", lambda deployment, now: ticks.append(deployment))
    await plane.pass_time(1000)
    assert ticks == []


# The end


async def test_a_shutdown_lets_proxies_finish_before_their_replicas_go(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await plane.until(lambda: plane.proxies, "a proxy")
    await running(plane, 2, graceful_shutdown_timeout_s=20)
    [proxy] = plane.proxies.values()
    proxy.hangs = True
    ending = plane.start_asking(Shutdown())
    await proxy.drained.wait()
    await rest()
    assert (len(plane.running("Model")), plane.status()) == (2, "RUNNING")
    await plane.pass_time(20)
    await ending
    assert (plane.running("Model"), plane.status(), plane.store.keys()) == ([], "", [])


async def test_nothing_is_deployed_any_more_during_a_shutdown(plane: Plane) -> None:
    plane.stubborn.add("v1")
    await running(plane, graceful_shutdown_timeout_s=20)
    ending = plane.start_asking(Shutdown())
    await rest()
    with pytest.raises(Refused, match="shutting down"):
        await plane.ask(Deploy(application(name="late")))
    await plane.pass_time(60)
    await ending


async def test_a_subscriber_that_is_gone_is_forgotten(plane: Plane) -> None:
    other = await plane.join("driver", "other")
    plane.driver.peer, other.peer = other.peer, plane.driver.peer
    plane.watch(STATUS_TOPIC)
    await rest()
    assert plane.plane.snapshots.is_watched(STATUS_TOPIC)
    plane.driver.peer.close()
    await plane.until(lambda: not plane.plane.snapshots.is_watched(STATUS_TOPIC), "an unwatched topic")
    plane.driver.peer = other.peer


async def test_who_unsubscribes_hears_nothing_more(plane: Plane) -> None:
    status = plane.watch(STATUS_TOPIC)
    await rest()
    plane.driver.peer.tell(Unsubscribe(STATUS_TOPIC))
    await running(plane)
    assert len(status) == 1


async def test_what_makes_no_sense_is_refused(plane: Plane) -> None:
    with pytest.raises(Refused, match="a controller does not answer Done"):
        await plane.ask(Done())
    plane.driver.peer.tell(Done())
    await plane.until(lambda: not plane.driver.peer.connected, "an end of the connection")


async def test_warnings_of_the_build_are_logged(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    spec = msgspec.structs.replace(application(), warnings=("Model has no __call__.",))
    with caplog.at_level(logging.WARNING, "salver"):
        await plane.ask(Deploy(spec))
    assert "shop: Model has no __call__." in caplog.text


async def test_an_engine_that_grows_is_asked_for_whatever_is_wanted(plane: Plane) -> None:
    plane.engine.grows = True
    await plane.ask(shop(ray_actor_options={"num_gpus": 1}))
    await plane.until(lambda: plane.deployment().message.startswith("Waiting for resources"), "a wait")
