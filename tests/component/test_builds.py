"""Applications built from an import path, by builders that report, fail, hang, die and are overtaken."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from salver.engine.base import ProcessSpec
from salver.schema.application import Preload
from salver.schema.messages import BuildError, Built, Delete, Deploy, Done, NodeReport, Shutdown
from salver.schema.topics import STATUS_TOPIC
from salver.transport.peer import Refused
from tests.component.control import Plane, order, rest, statuses
from tests.unit.controller.scene import application, deployment


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane() as each:
        yield each


async def test_a_built_application_is_deployed(plane: Plane) -> None:
    status = plane.watch(STATUS_TOPIC)
    await rest()
    plane.builds.append(application())
    await plane.ask(order())
    await plane.until_status("RUNNING")
    assert statuses(status) == ["", "DEPLOYING", "RUNNING"]
    await plane.until(lambda: plane.running("build") == [], "an end of the builder")


async def test_an_application_is_deploying_while_it_is_built(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    assert plane.status() == "DEPLOYING"
    assert plane.application().deployments == {}  # type: ignore[union-attr]


async def test_what_the_builder_could_not_do_is_shown(plane: Plane) -> None:
    plane.builds.append("Module 'shop' has no attribute 'app'.")
    await plane.ask(order())
    await plane.until_status("DEPLOY_FAILED")
    assert plane.application().message == "Module 'shop' has no attribute 'app'."  # type: ignore[union-attr]


async def test_a_failed_build_leaves_the_earlier_version_running(plane: Plane) -> None:
    await plane.ask(Deploy(application()))
    await plane.until_status("RUNNING")
    before = plane.running()
    plane.builds.append("SyntaxError: invalid syntax")
    await plane.ask(order())
    await plane.until_status("DEPLOY_FAILED")
    shown = plane.application()
    assert shown is not None
    assert (plane.running("Model"), shown.deployments["Model"].status.value, shown.route_prefix) == (
        before,
        "HEALTHY",
        "/",
    )
    plane.engine.die(before[0])
    await plane.until(lambda: plane.running("Model") not in ([], before), "a replacement")
    assert plane.status() == "DEPLOY_FAILED"


async def test_the_next_good_build_takes_the_failure_away(plane: Plane) -> None:
    plane.builds += ["SyntaxError: invalid syntax", application()]
    await plane.ask(order())
    await plane.until_status("DEPLOY_FAILED")
    await plane.ask(order())
    await plane.until_status("RUNNING")


async def test_a_module_that_cannot_be_imported_is_told_to_whoever_asked_and_shown(plane: Plane) -> None:
    plane.engine.broken_modules["shop"] = "Traceback …\nNameError: x"
    with pytest.raises(Refused, match="NameError: x"):
        await plane.ask(order())
    assert (plane.status(), plane.application().message) == ("DEPLOY_FAILED", "Traceback …\nNameError: x")  # type: ignore[union-attr]


async def test_an_import_path_without_meaning_is_refused_at_once_and_changes_nothing(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    with pytest.raises(Refused, match="'nonsense' is not an import path"):
        await plane.ask(order("nonsense"))
    assert (plane.status(), len(plane.running("build"))) == ("DEPLOYING", 1)


async def test_an_application_needs_a_name(plane: Plane) -> None:
    with pytest.raises(Refused, match="Application name must a non-empty string"):
        await plane.ask(order(name=""))


async def test_a_taken_prefix_is_refused_before_anything_is_built(plane: Plane) -> None:
    await plane.ask(Deploy(application(name="first")))
    with pytest.raises(Refused, match='Prefix / is being used by application "first"'):
        await plane.ask(order(name="second"))
    assert plane.status("second") == ""


async def test_a_prefix_that_was_taken_meanwhile_fails_the_build(plane: Plane) -> None:
    plane.builds += [application(name="first"), application(name="second")]
    await asyncio.gather(plane.ask(order(name="first")), plane.ask(order(name="second")))
    await plane.until_status("RUNNING", "first")
    await plane.until_status("DEPLOY_FAILED", "second")


async def test_an_application_that_can_never_fit_fails_when_it_is_built(plane: Plane) -> None:
    plane.builds.append(application(deployment(ray_actor_options={"num_gpus": 1})))
    await plane.ask(order())
    await plane.until_status("DEPLOY_FAILED")
    assert "asks for 1 replica × 1 GPU" in plane.application().message  # type: ignore[union-attr]


async def test_a_builder_that_dies_without_a_word_has_failed(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    plane.engine.running["build-1"].say("Fatal Python error: Segmentation fault")
    plane.engine.die("build-1", 11)
    await plane.until_status("DEPLOY_FAILED")
    shown = plane.application()
    assert shown is not None
    assert shown.message == "The builder build-1 was killed by SIGSEGV.\nFatal Python error: Segmentation fault"


async def test_a_newer_build_ends_the_older_one(plane: Plane) -> None:
    plane.builds += [None, application(version="v2")]
    await plane.ask(order())
    await plane.ask(order())
    await plane.until_status("RUNNING")
    await plane.until(lambda: plane.running("build") == [], "an end of both builders")


async def test_what_an_overtaken_builder_reports_does_not_count(plane: Plane) -> None:
    plane.builds += [None, None]
    await plane.ask(order())
    first = await plane.join("builder", "build-1")
    await plane.ask(order())
    await plane.until(lambda: plane.running("build") == ["build-2"], "the newer builder alone")
    await first.peer.ask(Built("shop", application(version="v1")), Done)
    await first.peer.ask(BuildError("shop", "late"), Done)
    assert (plane.status(), plane.running("Model")) == ("DEPLOYING", [])


async def test_a_newer_build_overtakes_one_whose_module_is_still_being_imported(plane: Plane) -> None:
    async def import_slowly(spec: ProcessSpec) -> None:
        if spec.name == "build-1":
            await asyncio.Event().wait()

    plane.engine.before_start = import_slowly
    plane.builds.append(application(version="v2"))
    first: asyncio.Task[Done] = asyncio.ensure_future(plane.ask(order()))
    await rest()
    await plane.ask(order())
    with pytest.raises(Refused, match="was stopped while it started"):
        await first
    await plane.until_status("RUNNING")


async def test_a_builder_that_appears_although_it_was_overtaken_is_ended(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, signal = asyncio.Event(), plane.engine.signal

    async def late(spec: ProcessSpec) -> None:
        if spec.name == "build-1":
            await may_start.wait()

    async def deaf(name: str, *, kill: bool = False) -> None:
        if may_start.is_set():
            await signal(name, kill=kill)

    plane.engine.before_start = late
    monkeypatch.setattr(plane.engine, "signal", deaf)
    plane.builds += [application(version="v2"), None]
    first: asyncio.Task[Done] = asyncio.ensure_future(plane.ask(order()))
    await rest()
    await plane.ask(order())
    await plane.until_status("RUNNING")
    may_start.set()
    await first
    await plane.until(lambda: plane.running("build") == [], "an end of the overtaken builder")
    assert plane.status() == "RUNNING"


async def test_deleting_an_application_ends_its_build(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    await plane.ask(Delete("shop"))
    await plane.until(lambda: plane.running() == [], "an end of the builder")
    assert plane.status() == ""


async def test_an_application_that_is_deleted_when_its_builder_reports_stays_away(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, nodes = asyncio.Event(), plane.engine.nodes
    asked = asyncio.Event()

    async def slow_nodes() -> list[NodeReport]:
        asked.set()
        await may_go_on.wait()
        return await nodes()

    monkeypatch.setattr(plane.engine, "nodes", slow_nodes)
    plane.builds.append(application())
    await plane.ask(order())
    await asked.wait()
    await plane.ask(Delete("shop"))
    may_go_on.set()
    await rest()
    assert (plane.status(), plane.running(), plane.store.keys()) == ("", [], [])


async def test_a_deploy_overtakes_a_build_of_the_same_application(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    await plane.ask(Deploy(application()))
    await plane.until_status("RUNNING")
    await plane.until(lambda: plane.running("build") == [], "an end of the builder")


async def test_a_deploy_that_is_refused_leaves_the_build_alone(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    with pytest.raises(Refused, match="GPU"):
        await plane.ask(Deploy(application(deployment(ray_actor_options={"num_gpus": 1}))))
    assert (plane.status(), plane.running("build")) == ("DEPLOYING", ["build-1"])


async def test_a_shutdown_ends_builds(plane: Plane) -> None:
    plane.builds.append(None)
    await plane.ask(order())
    await plane.ask(Shutdown())
    await plane.until(lambda: plane.running() == [], "an end of the builder")


async def test_what_was_kept_warm_is_released_before_a_build_and_after_an_application(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []

    async def release(preload: Preload) -> None:
        released.append(preload.env["OMP_NUM_THREADS"])

    monkeypatch.setattr(plane.engine, "release", release)
    two = deployment("Two", ray_actor_options={"num_cpus": 2})
    three = deployment("Three", ray_actor_options={"num_cpus": 3})
    await plane.ask(Deploy(application(two, three)))
    assert released == []
    plane.builds.append(application(two, version="v2"))
    await plane.ask(order())
    # The file may have changed, for every replica of it.
    assert sorted(released) == ["1", "2", "3"]
    await plane.until_status("RUNNING")
    # No replica of the new version needs three threads.
    await plane.until(lambda: len(released) == 4, "a release")
    assert released[3] == "3"
    await plane.ask(Delete("shop"))
    assert released[4:] == ["2"]


async def test_applications_that_share_a_preload_keep_it(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[Preload] = []

    async def release(preload: Preload) -> None:
        released.append(preload)

    monkeypatch.setattr(plane.engine, "release", release)
    other = application(name="other", route_prefix=None)
    elsewhere = msgspec.structs.replace(other, name="elsewhere", preload=Preload("/elsewhere"))
    for each in (application(), other, elsewhere):
        await plane.ask(Deploy(each))
    await plane.ask(Delete("shop"))
    assert released == []
    await plane.ask(Delete("elsewhere"))
    assert [each.working_dir for each in released] == ["/elsewhere"]
