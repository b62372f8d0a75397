"""Many models on few replicas, between real processes."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
import pytest

import salver as serve
from salver.api.driver import find_driver
from salver.handle import DeploymentHandle
from salver.schema.status import ReplicaDetails
from tests.system import multiplex_deployments as deployments
from tests.system.serving import new_place
from tests.waiting import wait_until_sync

MODELS = [f"m{number}" for number in range(12)]
WITHIN_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    with new_place(tmp_path_factory.mktemp("multiplexing")) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


class Zoo:
    """A running deployment of many models, and what its journal says."""

    def __init__(self, name: str, journal: Path, replicas: int) -> None:
        self.name = name
        self.journal = journal
        journal.touch()
        deployment = deployments.Zoo.options(num_replicas=replicas, user_config={"size": 1})
        self.handle: DeploymentHandle[Any] = serve.run(
            deployment.bind(str(journal)), name=name, route_prefix=f"/{name}"
        )

    def ask(self, model_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.handle.options(multiplexed_model_id=model_id).remote().result()
        return answer

    def get(self, model_id: str, header: str = "serve_multiplexed_model_id") -> httpx.Response:
        return httpx.get(f"{base_url()}/{self.name}", headers={header: model_id}, timeout=30)

    def noted(self, what: str) -> Counter[str]:
        """Return how often each model was loaded, or ended."""
        lines = self.journal.read_text().splitlines()
        return Counter(line.split()[1] for line in lines if line.startswith(f"{what} "))

    def replicas(self) -> list[ReplicaDetails]:
        return list(serve.status().applications[self.name].deployments["Zoo"].replicas)

    def models(self) -> list[set[str]]:
        return [set(each.multiplexed_model_ids) for each in self.replicas() if each.state.value == "RUNNING"]


def base_url() -> str:
    driver = find_driver()
    assert driver is not None
    assert driver.instance.http_url is not None
    return driver.instance.http_url


@pytest.fixture
def zoo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Zoo]:
    """Three replicas, of which each keeps six models."""
    each = Zoo(request.node.name, tmp_path / "journal", 3)
    yield each
    serve.delete(each.name)


def test_twelve_models_on_three_replicas_are_loaded_once(zoo: Zoo) -> None:
    for _ in range(5):
        for each in MODELS:
            assert zoo.ask(each)["model"] == each
    assert zoo.noted("load") == dict.fromkeys(MODELS, 1)
    wait_until_sync(lambda: set().union(*zoo.models()) == set(MODELS), within_s=WITHIN_S, what="all ids in the status")
    assert [len(each) for each in zoo.models()] == [4, 4, 4]


def test_many_at_once_find_their_models_although_no_replica_holds_them_all(zoo: Zoo) -> None:
    def ask_many(number: int) -> int:
        before = zoo.noted("load").total()
        random = Random(number)
        with ThreadPoolExecutor(6) as threads:
            asked = random.choices(MODELS, k=number)
            assert [each["model"] for each in threads.map(zoo.ask, asked)] == asked
        return zoo.noted("load").total() - before

    ask_many(100)
    assert ask_many(400) <= 20


def test_requests_over_http_find_what_calls_have_loaded(zoo: Zoo) -> None:
    for each in MODELS:
        zoo.ask(each)
    wait_until_sync(lambda: set().union(*zoo.models()) == set(MODELS), within_s=WITHIN_S, what="all ids in the status")

    def loads_of_a_round() -> int:
        before = zoo.noted("load").total()
        for each in MODELS:
            assert zoo.get(each).json()["model"] == each
        return zoo.noted("load").total() - before

    # The proxy hears of it soon; until then it may have a model loaded a second time.
    wait_until_sync(lambda: loads_of_a_round() == 0, within_s=WITHIN_S, what="a round without a load")
    assert [loads_of_a_round() for _ in range(3)] == [0, 0, 0]
    assert zoo.noted("load").total() < 2 * len(MODELS)


@pytest.mark.parametrize("header", ["serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id"])
def test_rule_requests_model_id_by_http_header(header: str) -> None:
    serve.run(deployments.Echo.bind(), name="echo", route_prefix="/echo")
    answer = httpx.get(f"{base_url()}/echo", headers={header: "m7"}, timeout=30)
    assert answer.json() == {"model": "m7"}


def test_rule_requests_model_id_by_handle_option() -> None:
    handle = serve.run(deployments.Echo.bind(), name="echo", route_prefix="/echo")
    assert handle.options(multiplexed_model_id="m7").model_id.remote().result() == "m7"


def test_rule_without_id_it_is_empty_and_loading_fails(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="The model ID cannot be empty"):
        zoo.handle.remote().result()
    answer = httpx.get(f"{base_url()}/{zoo.name}", timeout=30)
    assert answer.status_code == 500


def test_rule_composition_must_forward_the_id(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    keeper = serve.run(deployments.Keeper.bind(deployments.Zoo.bind(str(journal))), name="keeper", route_prefix=None)
    assert keeper.options(multiplexed_model_id="m3").forward.remote().result()["model"] == "m3"
    forgetful = serve.run(deployments.Keeper.bind(deployments.Echo.bind()), name="forgetful", route_prefix=None)
    assert forgetful.options(multiplexed_model_id="m3").forget.remote().result() == "m3>"


def test_rule_with_batching_each_model_has_batches_of_its_own() -> None:
    handle = serve.run(deployments.Batches.bind(), name="batches", route_prefix=None)
    asked = [("ab"[number % 2], number) for number in range(8)]
    answers = [handle.options(multiplexed_model_id=model_id).remote(number) for model_id, number in asked]
    assert [each.result() for each in answers] == [f"{model_id.upper()}{number}" for model_id, number in asked]


def test_rule_load_error_goes_to_the_caller_and_is_not_cached(zoo: Zoo) -> None:
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="there is no broken1"):
            zoo.ask("broken1")
    assert zoo.get("broken1").status_code == 500
    assert zoo.noted("fail") == {"broken1": 3}
    assert zoo.ask("m1")["model"] == "m1"
    wait_until_sync(lambda: set().union(*zoo.models()) == {"m1"}, within_s=WITHIN_S, what="only what was loaded")


def test_rule_replica_shutdown_unloads_all_models(zoo: Zoo) -> None:
    for each in MODELS:
        zoo.ask(each)
    serve.delete(zoo.name)
    assert zoo.noted("end") == zoo.noted("load") == dict.fromkeys(MODELS, 1)


def test_the_models_of_a_killed_replica_are_loaded_elsewhere_and_no_others(zoo: Zoo) -> None:
    for each in MODELS:
        zoo.ask(each)
    wait_until_sync(lambda: set().union(*zoo.models()) == set(MODELS), within_s=WITHIN_S, what="all ids in the status")
    victim = zoo.replicas()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    wait_until_sync(
        lambda: len(zoo.models()) == 3 and victim.replica_id not in [each.replica_id for each in zoo.replicas()],
        within_s=WITHIN_S,
        what="another replica",
    )
    for _ in range(2):
        for each in MODELS:
            assert zoo.ask(each)["model"] == each
    lost = set(victim.multiplexed_model_ids)
    assert zoo.noted("load") == {each: 1 + (each in lost) for each in MODELS}


def test_another_controller_hears_which_models_there_are(zoo: Zoo) -> None:
    for each in MODELS:
        zoo.ask(each)
    wait_until_sync(lambda: set().union(*zoo.models()) == set(MODELS), within_s=WITHIN_S, what="all ids in the status")
    before = zoo.models()
    controllers = [each for each in psutil.Process().children(recursive=True) if each.name() == "controller"]
    assert len(controllers) == 1
    controllers[0].kill()
    controllers[0].wait(WITHIN_S)
    for each in MODELS:
        assert zoo.ask(each)["model"] == each
    wait_until_sync(lambda: zoo.models() == before, within_s=WITHIN_S, what="the same models as before")
    assert zoo.noted("load") == dict.fromkeys(MODELS, 1)


def test_the_status_has_what_the_hooks_of_the_class_record(zoo: Zoo) -> None:
    wait_until_sync(lambda: all(each.routing_stats for each in zoo.replicas()), within_s=WITHIN_S, what="statistics")
    for each in zoo.replicas():
        assert each.routing_stats == {"pid": each.pid}
        # Metadata is recorded before `reconfigure` is called for the first time.
        assert each.metadata == {"pid": each.pid, "config": None}
