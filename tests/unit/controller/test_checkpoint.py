"""What was asked survives the controller."""

from collections.abc import Callable
from pathlib import Path

import pytest

from salver.controller.checkpoint import Checkpoint
from salver.controller.desired import WantedApplication
from salver.engine.base import KeyValueStore
from salver.engine.fake import MemoryStore
from salver.engine.store import SqliteStore
from tests.unit.controller.scene import application, deployment

RICH = deployment(
    "A",
    num_replicas=3,
    user_config={"threshold": 0.5, "names": ["a", "b"]},
    ray_actor_options={"num_gpus": 0.5, "resources": {"x": 1}, "runtime_env": {"env_vars": {"A": "1"}}},
    backpressure_config={"status_code": 429, "retry_after_s": 2.5},
)
SCALED = deployment("B", autoscaling_config={"min_replicas": 0, "max_replicas": 4})

MakeStore = Callable[[], KeyValueStore]


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Return what opens the same store each time."""
    kept = MemoryStore()
    return lambda: kept if request.param == "memory" else SqliteStore(tmp_path / "checkpoint.sqlite")


def test_applications_come_back_as_they_were_saved(open_store: MakeStore) -> None:
    wanted = [
        WantedApplication(application(RICH, SCALED, name="one", route_prefix=None), 12.5),
        WantedApplication(application(RICH, name="two"), 13.0),
    ]
    checkpoint = Checkpoint(open_store())
    for each in wanted:
        checkpoint.save(each)
    checkpoint.close()
    reopened = Checkpoint(open_store())
    assert reopened.load() == wanted
    reopened.close()


def test_a_later_version_replaces_an_earlier_one_and_what_is_removed_stays_away(open_store: MakeStore) -> None:
    checkpoint = Checkpoint(open_store())
    checkpoint.save(WantedApplication(application(RICH, name="one"), 1.0))
    checkpoint.save(WantedApplication(application(RICH, name="one", version="v2"), 2.0))
    checkpoint.save(WantedApplication(application(RICH, name="two"), 3.0))
    checkpoint.remove("two")
    checkpoint.remove("unknown")
    assert [(each.spec.version, each.deployed_at_s) for each in checkpoint.load()] == [("v2", 2.0)]
    checkpoint.close()
