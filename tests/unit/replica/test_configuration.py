"""When the user's `reconfigure` is called, and with what."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from salver.replica.configuration import Configuration
from salver.replica.user_code import UserCode
from salver.runtime.context import ReplicaContext, get_replica_context, set_replica_context
from salver.schema.errors import SalverError
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank
from salver.schema.messages import Ranked


class Plain:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def reconfigure(self, user_config: Any) -> None:
        self.calls.append((user_config,))


class WithRank(Plain):
    async def reconfigure(self, user_config: Any, rank: ReplicaRank | None = None) -> None:
        await asyncio.sleep(0)
        self.calls.append((user_config, None if rank is None else rank.rank))
        if rank is not None and rank.rank > 6:
            raise ValueError("too high")


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    replica = ReplicaID("1234abcd", DeploymentID("model", "shop"))
    set_replica_context(ReplicaContext(replica, None, "v1", ReplicaRank(2), 3))
    yield
    set_replica_context(None)


def ranked(rank: int, world_size: int = 3) -> Ranked:
    return Ranked(ReplicaRank(rank), world_size)


async def begun(servable: Any, user_config: Any = None) -> tuple[Configuration, Any]:
    """Return a replica's configuration after its start with rank 2."""
    code = UserCode(servable, max_threads=1)
    await code.construct((), {})
    configuration = Configuration(user_config)
    await configuration.change_rank(ranked(2))
    assert await configuration.rank() == ranked(2)
    await configuration.begin(code)
    return configuration, code.instance


async def test_who_takes_a_rank_is_reconfigured_when_it_changes() -> None:
    configuration, instance = await begun(WithRank, {"a": 1})
    await configuration.change_rank(ranked(0))
    assert instance.calls == [({"a": 1}, 2), ({"a": 1}, 0)]
    assert get_replica_context().rank == ReplicaRank(0)


async def test_who_takes_none_is_not() -> None:
    configuration, instance = await begun(Plain, {"a": 1})
    await configuration.change_rank(ranked(0))
    assert instance.calls == [({"a": 1},)]
    assert get_replica_context().rank == ReplicaRank(0)


async def test_another_number_of_replicas_changes_the_context_alone() -> None:
    configuration, instance = await begun(WithRank)
    await configuration.change_rank(ranked(2, world_size=5))
    assert instance.calls == [(None, 2)]
    assert get_replica_context().world_size == 5


async def test_another_user_config_comes_with_the_rank_that_holds() -> None:
    configuration, instance = await begun(WithRank, {"a": 1})
    await asyncio.gather(configuration.change_rank(ranked(1)), configuration.change_user_config({"a": 2}))
    assert instance.calls[0] == ({"a": 1}, 2)
    assert instance.calls[-1] == ({"a": 2}, 1)


async def test_what_reconfigure_raises_is_for_whoever_asked() -> None:
    configuration, _ = await begun(WithRank)
    with pytest.raises(SalverError, match="ValueError: too high"):
        await configuration.change_rank(ranked(7))


async def test_who_is_not_wanted_any_more_waits_for_no_rank() -> None:
    configuration = Configuration(None)
    configuration.give_up()
    with pytest.raises(SalverError, match="told to end before it had a rank"):
        await configuration.rank()
