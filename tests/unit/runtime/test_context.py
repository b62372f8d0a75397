"""Which replica this is."""

from collections.abc import Iterator

import pytest

from salver.runtime.context import ReplicaContext, find_replica_context, get_replica_context, set_replica_context
from salver.schema.errors import SalverError
from salver.schema.ids import DeploymentID, ReplicaID


@pytest.fixture
def context() -> Iterator[ReplicaContext]:
    context = ReplicaContext(ReplicaID("1234abcd", DeploymentID("model", "shop")), None, "v1")
    set_replica_context(context)
    yield context
    set_replica_context(None)


def test_a_replica_knows_what_it_is(context: ReplicaContext) -> None:
    assert get_replica_context() is find_replica_context() is context
    assert (context.app_name, context.deployment, context.replica_tag) == ("shop", "model", "1234abcd")
    assert str(context.replica_id) == "shop#model#1234abcd"


def test_outside_of_a_replica_there_is_none() -> None:
    assert find_replica_context() is None
    with pytest.raises(SalverError, match=r"get_replica_context\(\)` may only be called from within"):
        get_replica_context()
