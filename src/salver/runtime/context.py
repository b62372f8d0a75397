"""Which replica this is."""

import asyncio
from dataclasses import dataclass
from typing import Any

from salver.lib.process_local import ProcessLocal
from salver.lib.tasks import Tasks
from salver.schema.errors import SalverError
from salver.schema.ids import ReplicaID, ReplicaRank

_ALONE = ReplicaRank()


@dataclass(frozen=True)
class ReplicaContext:
    """The replica that the calling code runs in.

    Attributes:
        replica_id: Its id.
        servable_object: The user's instance; None while it is being constructed, and for functions the function.
        code_version: Version of the application it was started with.
        rank: Which of its deployment's replicas it is. It may change while the replica lives.
        world_size: How many replicas the deployment is to have; changes when it is scaled.
    """

    replica_id: ReplicaID
    servable_object: Any
    code_version: str
    rank: ReplicaRank = _ALONE
    world_size: int = 1

    @property
    def app_name(self) -> str:
        """Return the application's name."""
        return self.replica_id.deployment_id.app_name

    @property
    def deployment(self) -> str:
        """Return the deployment's name."""
        return self.replica_id.deployment_id.name

    @property
    def replica_tag(self) -> str:
        """Return the replica's unique id."""
        return self.replica_id.unique_id


_here: ProcessLocal[ReplicaContext] = ProcessLocal()
_limit: ProcessLocal[int] = ProcessLocal()
_tasks: ProcessLocal[tuple[Tasks, asyncio.AbstractEventLoop]] = ProcessLocal()


def set_replica_context(context: ReplicaContext | None) -> None:
    """Say which replica this process is."""
    _here.set(context)


def find_replica_context() -> ReplicaContext | None:
    """Return the replica this process is, or None."""
    return _here.get()


def get_replica_context() -> ReplicaContext:
    """Return the replica that the calling code runs in.

    Raises:
        SalverError: The code does not run in a replica.
    """
    context = _here.get()
    if context is None:
        raise SalverError("`serve.get_replica_context()` may only be called from within a deployment's replica.")
    return context


def set_max_ongoing_requests(limit: int | None) -> None:
    """Say how many requests this replica works on at once."""
    _limit.set(limit)


def find_max_ongoing_requests() -> int | None:
    """Return how many requests this replica works on at once, or None."""
    return _limit.get()


def set_replica_tasks(tasks: Tasks | None, loop: asyncio.AbstractEventLoop | None) -> None:
    """Say who owns the tasks that decorators of user code start in the replica's event loop, and ends them with it."""
    _tasks.set(None if tasks is None or loop is None else (tasks, loop))


def find_replica_tasks() -> Tasks | None:
    """Return who owns such tasks, or None where another event loop runs, or none."""
    found = _tasks.get()
    return found[0] if found is not None and asyncio.get_running_loop() is found[1] else None
