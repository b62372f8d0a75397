"""The user's router at work in its thread: what it is told, and that its failures are its own."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from salver.handle import DeploymentHandle
from salver.handle.request_router.api import PendingRequest, RequestRouter, RunningReplica
from salver.handle.request_router.loading import load_router_class
from salver.lib.importing import ImportFailed
from salver.lib.preloaded import digest_of
from salver.schema.application import ImportedCode, PickledCode, RouterSpec
from salver.transport.codec import dumps
from tests.unit.handle.worlds import World, echo
from tests.waiting import wait_until

Groups = list[list[RunningReplica]]


class Noting(RequestRouter):
    """Ranks all, and notes what it is told."""

    told: ClassVar[list[tuple[str, Any]]] = []

    async def initialize_state(self, color: str) -> None:
        self.told.append(("state", color))

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
        self.told.append(("thread", threading.current_thread().name))
        self.told.append(("args", (pending_request.args, pending_request.kwargs)))
        assert list(self.curr_replicas.values()) == candidate_replicas
        return [candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        self.told.append(("replicas", len(replicas)))

    def on_request_routed(self, pending_request: PendingRequest, replica_id: Any, result: object) -> None:
        self.told.append(("routed", pending_request.metadata.call_method))

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        self.told.append(("completed", internal_request_id))
        raise ValueError("hooks may fail")


class Raising(RequestRouter):
    """Fails."""

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
        raise SystemExit(3)


class Blocking(RequestRouter):
    """Blocks its thread."""

    choice_timeout_s = 0.05
    asked: ClassVar[list[None]] = []

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
        self.asked.append(None)
        time.sleep(0.4)
        return []


class Waiting(Blocking):
    """Waits for ever."""

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
        await asyncio.Event().wait()
        return []


class Nonsense(RequestRouter):
    """Answers what is no answer."""

    answer: Any = 42

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
        return self.answer  # type: ignore[no-any-return]


class Flat(Nonsense):
    """Forgets that groups are lists."""

    async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Any:
        return candidate_replicas


class Incomplete(RequestRouter):
    """Does not choose."""


class Unmade(Nonsense):
    """Cannot be made."""

    def initialize_state(self) -> None:
        raise KeyError("state")


def spec_of(name: str, **kwargs: Any) -> RouterSpec:
    return RouterSpec(code=ImportedCode(__name__, name), kwargs=kwargs)


Serve = Callable[[RouterSpec], Any]


@pytest.fixture
async def serve(world: World) -> AsyncIterator[Serve]:
    """Serve a deployment whose router is the user's; the router's thread ends at the end."""

    async def served(spec: RouterSpec) -> DeploymentHandle[Any]:
        return await world.serve("model", echo, router=spec)

    yield served
    world.routers.close()
    await wait_until(
        lambda: not [each for each in threading.enumerate() if each.name.startswith("router of")],
        within_s=5,
        what="an end of the router's thread",
    )


async def test_it_runs_in_a_thread_of_its_own_and_is_told_of_everything(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    Noting.told.clear()
    handle = await serve(spec_of("Noting", color="red"))
    big = b"x" * 100_000
    assert await handle.remote("one") == "one"
    assert await handle.remote(text=big) == [{"text": big}]
    told = Noting.told
    await wait_until(lambda: len([each for each in told if each[0] == "completed"]) == 2, within_s=5, what="hooks")
    assert told[0] == ("state", "red")
    assert ("replicas", 1) in told
    assert ("thread", "router of shop/model") in told
    assert ("args", (("one",), {})) in told
    assert ("args", ((), {"text": big})) in told
    assert told.count(("routed", "__call__")) == 2
    await wait_until(lambda: "hooks may fail" in caplog.text, within_s=5, what="a report")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("Raising", "SystemExit: 3"),
        ("Blocking", "choose_replicas() took longer than 0.05s"),
        ("Waiting", "choose_replicas() took longer than 0.05s"),
        ("Nonsense", "choose_replicas() returned 42, not a list of lists of RunningReplica"),
        ("Flat", ", not a list of lists of RunningReplica"),
        ("Unmade", "KeyError: 'state'"),
        ("Incomplete", "Incomplete does not define choose_replicas()."),
        ("Missing", "has no attribute 'Missing'"),
    ],
)
async def test_its_failures_are_reported_once_and_the_request_is_served(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, report: str
) -> None:
    caplog.set_level(logging.WARNING)
    handle = await serve(spec_of(name))
    for number in range(3):
        assert await handle.remote(number) == number
    assert [report in each.getMessage() for each in caplog.records] == [True]


async def test_after_a_choice_that_took_too_long_it_is_left_alone(serve: Serve) -> None:
    Blocking.asked.clear()
    handle = await serve(spec_of("Blocking"))
    for number in range(5):
        await handle.remote(number)
    assert len(Blocking.asked) == 1


async def test_a_class_without_an_import_path_comes_as_a_blob(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    class Local(RequestRouter):
        async def choose_replicas(self, candidate_replicas: list[RunningReplica], pending_request: Any) -> Groups:
            sys.modules["a_list"].append(1)
            return [candidate_replicas]

    monkeypatch.setitem(sys.modules, "a_list", chosen)
    blob = dumps(Local)
    handle = await serve(RouterSpec(code=PickledCode(digest_of(blob)), blob=blob))
    assert await handle.remote(1) == 1
    assert chosen == [1]


def test_a_module_is_found_where_the_application_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "routers_of_a_test.py").write_text(
        "from salver.request_router import RoundRobinRouter\nclass Own(RoundRobinRouter): pass\n"
    )
    spec = RouterSpec(code=ImportedCode("routers_of_a_test", "Own"), search_path=(str(tmp_path),))
    assert load_router_class(spec).__name__ == "Own"
    assert sys.path[-1] == str(tmp_path)
    sys.modules.pop("routers_of_a_test")


def test_another_applications_module_of_the_same_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "json.py").write_text("")
    spec = RouterSpec(code=ImportedCode("json", "Own"), search_path=(str(tmp_path),))
    with pytest.raises(ImportFailed, match="already the name of another module"):
        load_router_class(spec)


class Unready(Nonsense):
    """Is never done with its beginning."""

    async def initialize_state(self) -> None:
        await asyncio.Event().wait()


async def test_requests_do_not_wait_long_for_a_router_that_is_slow_to_be_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.handle.request_router.user_router.START_TIMEOUT_S", 0.05)
    handle = await serve(spec_of("Unready"))
    for number in range(3):
        assert await handle.remote(number) == number
