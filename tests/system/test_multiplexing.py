"""Many models on few replicas, between real processes."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import salver as serve
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
    from salver.api import verbs

    return f"http://127.0.0.1:{verbs._driver().instance.http_port}"  # type: ignore[attr-defined]


def test_twelve_models_on_three_replicas_are_loaded_once(tmp_path: Path) -> None:
    zoo = Zoo("calls", tmp_path / "journal", 3)
    for _ in range(5):
        for each in MODELS:
            assert zoo.ask(each)["model"] == each
    assert zoo.noted("load") == dict.fromkeys(MODELS, 1)
    wait_until_sync(lambda: set().union(*zoo.models()) == set(MODELS), within_s=WITHIN_S, what="all models in the status")
    assert [len(each) for each in zoo.models()] == [4, 4, 4]
