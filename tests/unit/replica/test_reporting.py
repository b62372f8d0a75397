"""What a replica says of itself, from its start to its end."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from salver.lib.clock import ManualClock
from salver.lib.tasks import Tasks
from salver.replica.reporting import Reporting
from salver.replica.user_code import UserCode
from salver.runtime.models import ReplicaModels
from salver.schema.application import ImportedCode
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import Message, ReplicaReport
from salver.schema.process_payloads import ReplicaPayload
from tests.waiting import wait_until

REPLICA = ReplicaID("r1", DeploymentID("Model", "shop"))
PAYLOAD = ReplicaPayload(
    controller_address="",
    replica=REPLICA,
    code=ImportedCode("shop", "Model"),
    arguments=b"",
    max_ongoing_requests=5,
    num_cpus=1.0,
    user_config=None,
    health_check_period_s=10.0,
    health_check_timeout_s=30.0,
    code_version="v1",
    expose_tracebacks=False,
    routing_stats_period_s=10.0,
    routing_stats_timeout_s=30.0,
    autoscaling_stats_period_s=10.0,
)


class Desk:
    """A replica that reports, and all it has told."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.told: list[Message] = []
        self.models = ReplicaModels()
        self.clock = ManualClock()

    async def begin(self, servable: Any) -> Reporting:
        code = UserCode(servable, max_threads=1)
        await code.construct((), {})
        return Reporting(PAYLOAD, code, self.models, self.told.append, self.tasks)

    async def until_told(self, **fields: Any) -> None:
        await wait_until(lambda: self.last(*fields) == fields, within_s=5, what=f"{fields} in {self.told}")

    def last(self, *names: str) -> dict[str, Any]:
        """Return the last that was told of each of these."""
        values: dict[str, Any] = {}
        for each in self.told:
            assert isinstance(each, ReplicaReport)
            for name in names:
                if (value := getattr(each, name)) is not None:
                    values[name] = value
        return values


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    failed: list[Any] = []
    tasks = Tasks(lambda name, error: failed.append((name, error)))
    yield Desk(tasks)
    await tasks.close()
    assert failed == []


class Talkative:
    def __init__(self) -> None:
        self.asked = 0

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"zone": "north"}

    def record_routing_stats(self) -> dict[str, float]:
        self.asked += 1
        return {"asked": self.asked}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {"queue": 3}


async def test_hook_record_replica_metadata_is_asked_once_before_anything_else(desk: Desk) -> None:
    reporting = await desk.begin(Talkative)
    await reporting.record_metadata()
    assert desk.told == [ReplicaReport(replica=REPLICA, metadata={"zone": "north"})]


async def test_hook_record_routing_stats_is_asked_in_each_period(desk: Desk) -> None:
    reporting = await desk.begin(Talkative)
    reporting.start(desk.clock)
    await desk.until_told(routing_stats={"asked": 1.0})
    desk.clock.advance(PAYLOAD.routing_stats_period_s)
    await desk.until_told(routing_stats={"asked": 2.0})


async def test_hook_record_autoscaling_stats_is_asked(desk: Desk) -> None:
    (await desk.begin(Talkative)).start(desk.clock)
    await desk.until_told(autoscaling_stats={"queue": 3.0})


async def test_a_hook_that_raises_does_not_keep_the_replica_from_serving(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def record_replica_metadata(self) -> dict[str, Any]:
            raise ValueError("no zone")

    with caplog.at_level(logging.WARNING, logger="salver"):
        await (await desk.begin(Broken)).record_metadata()
    assert "no zone" in caplog.text
    assert desk.told == []


class Forwarding:
    """Passes on whatever it does not know."""

    def __getattr__(self, name: str) -> Any:
        return lambda: {name: 1.0}


@pytest.mark.parametrize("servable", [type("Silent", (), {}), lambda: None, Forwarding])
async def test_whoever_has_nothing_to_say_tells_nothing(desk: Desk, servable: Any) -> None:
    reporting = await desk.begin(servable)
    await reporting.record_metadata()
    reporting.start(desk.clock)
    assert (desk.told, len(desk.tasks)) == ([], 0)


async def test_models_are_told_also_those_that_the_constructor_has_loaded(desk: Desk) -> None:
    async def load(model_id: str) -> str:
        return model_id

    await desk.models.of("loader", load, 3).get("a")
    reporting = await desk.begin(Talkative)
    assert desk.told == [ReplicaReport(replica=REPLICA, multiplexed_model_ids=("a",))]
    await desk.models.of("loader", load, 3).get("b")
    await desk.until_told(multiplexed_model_ids=("a", "b"))
    reporting.close()
    before = len(desk.told)
    await desk.models.of("loader", load, 3).get("c")
    await asyncio.sleep(0)
    assert len(desk.told) == before
