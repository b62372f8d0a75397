"""Multiplexed models where replicas are threads: each replica has its own, also of a function that all share."""

import threading
import pytest

import salver as serve
from salver.testing import local_app
from tests.waiting import wait_until_sync

LOADS: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def loads() -> list[tuple[str, str]]:
    LOADS.clear()
    return LOADS


@serve.multiplexed(max_num_models_per_replica=2)
async def load(model_id: str) -> str:
    LOADS.append((serve.get_replica_context().replica_tag, model_id))
    return f"{model_id}@{threading.get_ident()}"


@serve.deployment(num_replicas=2)
async def predict() -> str:
    model = await load(serve.get_multiplexed_model_id())
    name, _, thread = model.partition("@")
    assert thread == str(threading.get_ident()), "a model of another replica"
    return name


def test_each_replica_has_its_own_models_and_requests_find_them(loads: list[tuple[str, str]]) -> None:
    with local_app(predict.bind()) as handle:
        for _ in range(3):
            for model_id in "abcd":
                assert handle.options(multiplexed_model_id=model_id).remote().result() == model_id
        assert sorted(model_id for _, model_id in loads) == ["a", "b", "c", "d"]
        assert len({replica for replica, _ in loads}) == 2

        def shown() -> list[str]:
            replicas = serve.status().applications["default"].deployments["predict"].replicas
            return sorted(model_id for each in replicas for model_id in each.multiplexed_model_ids)

        wait_until_sync(lambda: shown() == ["a", "b", "c", "d"], within_s=10, what="all ids in the status")
