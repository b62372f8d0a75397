"""Endpoints that several replicas share call the instance of the replica that is asked, and look like the method."""

import contextvars
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from salver.lib.process_local import become_process
from salver.runtime.context import ReplicaContext, set_replica_context
from salver.runtime.shared import of_the_asked_replica
from salver.schema.ids import DeploymentID, ReplicaID

if TYPE_CHECKING:
    from decimal import Decimal


class Api:
    """Has an endpoint of each kind."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def awaited(self, x: "int") -> str:
        """Say who was asked."""
        return f"{self.name}{x}"

    def plain(self, x: int) -> str:
        """Say who was asked."""
        return f"{self.name}{x}"

    async def streamed(self) -> AsyncIterator[str]:
        """Say who was asked."""
        yield self.name

    def generated(self) -> Iterator[str]:
        """Say who was asked."""
        yield self.name

    def unknown(self, x: "Decimal") -> None:
        """Have an annotation that only type checkers know."""


def in_replica(instance: Api) -> contextvars.Context:
    """Return the context of a replica in this process."""
    context = contextvars.copy_context()
    context.run(become_process)
    replica = ReplicaID("1234abcd", DeploymentID("Api"))
    context.run(set_replica_context, ReplicaContext(replica, instance, "v1"))
    return context


def test_the_replica_that_is_asked_answers() -> None:
    first, second = Api("first"), Api("second")
    plain = of_the_asked_replica(first.plain)
    generated = of_the_asked_replica(first.generated)
    for instance in (first, second):
        context = in_replica(instance)
        assert context.run(plain, 1) == f"{instance.name}1"
        assert context.run(lambda: list(generated())) == [instance.name]


async def test_asynchronous_endpoints_do_the_same() -> None:
    first, second = Api("first"), Api("second")
    become_process()
    set_replica_context(ReplicaContext(ReplicaID("1234abcd", DeploymentID("Api")), second, "v1"))
    assert await of_the_asked_replica(first.awaited)(1) == "second1"
    assert [each async for each in of_the_asked_replica(first.streamed)()] == ["second"]


def test_it_is_of_the_methods_kind_and_has_its_signature_without_self() -> None:
    kinds: list[Any] = [inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction]
    api = Api("it")
    for method in (api.awaited, api.plain, api.streamed, api.generated):
        shared = of_the_asked_replica(method)
        assert [kind(shared) for kind in kinds] == [kind(method) for kind in kinds]
        assert shared.__name__ == method.__name__
        assert list(inspect.signature(shared).parameters) == list(inspect.signature(method).parameters)
    assert inspect.signature(of_the_asked_replica(api.awaited)).parameters["x"].annotation is int
    assert inspect.signature(of_the_asked_replica(api.unknown)).parameters["x"].annotation == "Decimal"
