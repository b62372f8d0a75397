"""What happened. Only these change `observed`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank


@dataclass(frozen=True)
class WishChanged:
    """A deployment is wanted in another way, or no longer (version None)."""

    deployment: DeploymentID
    version: str | None


@dataclass(frozen=True)
class ReplicaLaunched:
    """A process was ordered for a replica.

    Attributes:
        adopted: It was ordered by an earlier controller, and has not said yet what became of it.
    """

    replica: ReplicaID
    version: str
    drain_timeout_s: float
    silence_allowed_s: float
    resources: Mapping[str, float]
    adopted: bool = False


@dataclass(frozen=True)
class ReplicaPlaced:
    """The replica's process runs."""

    replica: ReplicaID
    node_id: str
    pid: int


@dataclass(frozen=True)
class ReplicaAwaitsRank:
    """The replica's process is connected and waits for its rank, or has one from an earlier controller."""

    replica: ReplicaID
    rank: ReplicaRank | None = None


@dataclass(frozen=True)
class RankSent:
    """The replica was told its rank, and how many replicas are wanted."""

    replica: ReplicaID
    rank: ReplicaRank
    world_size: int


@dataclass(frozen=True)
class NoRoomForReplica:
    """No node has the resources free; no process was started."""

    replica: ReplicaID
    reason: str


@dataclass(frozen=True)
class ReplicaStartFailed:
    """The replica could not be started, or its constructor raised; its process's exit is on its way."""

    replica: ReplicaID
    reason: str


@dataclass(frozen=True)
class ReplicaReadied:
    """The replica answers requests.

    Attributes:
        rank: The rank that it was told last; None where that is known.
    """

    replica: ReplicaID
    address: str
    rank: ReplicaRank | None = None


@dataclass(frozen=True)
class ReplicaReported:
    """The replica said something of itself; fields that are None have not changed."""

    replica: ReplicaID
    multiplexed_model_ids: tuple[str, ...] | None = None
    routing_stats: Mapping[str, float] | None = None
    autoscaling_stats: Mapping[str, float] | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ReplicaHeard:
    """The replica told how it fares; see `ReplicaHealth`."""

    replica: ReplicaID
    failures: int
    reason: str
    loop_held_s: float


@dataclass(frozen=True)
class ReplicaSuspected:
    """Nothing was heard of the replica for so long that something may be wrong."""

    replica: ReplicaID


@dataclass(frozen=True)
class ReconfigureFailed:
    """The user's `reconfigure` raised in a replica that served."""

    replica: ReplicaID
    reason: str


@dataclass(frozen=True)
class ReplicaUnhealthy:
    """The replica was found to be ill and is being replaced."""

    replica: ReplicaID
    reason: str


@dataclass(frozen=True)
class DrainBegan:
    """The replica was told to finish what it has."""

    replica: ReplicaID


@dataclass(frozen=True)
class StopBegan:
    """The replica's process was told to end."""

    replica: ReplicaID


@dataclass(frozen=True)
class KillSent:
    """The replica's process was killed; its exit is on its way."""

    replica: ReplicaID


@dataclass(frozen=True)
class ReplicaDrained:
    """The replica has no request and no caller left, or its connection is gone."""

    replica: ReplicaID


@dataclass(frozen=True)
class ReplicaExited:
    """The replica's process is gone, or was never there."""

    replica: ReplicaID
    how: str


@dataclass(frozen=True)
class ResourcesFreed:
    """Some process somewhere ended, so that waiting replicas may find room."""


ReplicaEvent = (
    ReplicaLaunched
    | ReplicaPlaced
    | ReplicaAwaitsRank
    | RankSent
    | NoRoomForReplica
    | ReplicaStartFailed
    | ReplicaReadied
    | ReplicaReported
    | ReplicaHeard
    | ReplicaSuspected
    | ReconfigureFailed
    | ReplicaUnhealthy
    | DrainBegan
    | StopBegan
    | KillSent
    | ReplicaDrained
    | ReplicaExited
)

Event = WishChanged | ResourcesFreed | ReplicaEvent
