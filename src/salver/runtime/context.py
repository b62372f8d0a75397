"""Which replica this is."""

from dataclasses import dataclass
from typing import Any

from salver.lib.process_local import ProcessLocal
from salver.schema.errors import SalverError
from salver.schema.ids import ReplicaID


@dataclass(frozen=True)
class ReplicaContext:
    """The replica that the calling code runs in.

    Attributes:
        replica_id: Its id.
        servable_object: The user's instance; None while it is being constructed, and for functions the function.
        code_version: Version of the application it was started with.
    """

    replica_id: ReplicaID
    servable_object: Any
    code_version: str

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
