"""What to do. Deciders return these; the executor performs them."""

from dataclasses import dataclass

from salver.controller.desired import Wish
from salver.schema.ids import ReplicaID, ReplicaRank


@dataclass(frozen=True)
class StartReplica:
    """Start one more replica."""

    wish: Wish


@dataclass(frozen=True)
class DrainReplica:
    """Let a replica finish what it has, taking nothing new."""

    replica: ReplicaID


@dataclass(frozen=True)
class SuspectReplica:
    """Note that nothing was heard of a replica for long."""

    replica: ReplicaID


@dataclass(frozen=True)
class RetireReplica:
    """Give up a replica that is ill: let it finish what it has, taking nothing new."""

    replica: ReplicaID
    reason: str


@dataclass(frozen=True)
class StopReplica:
    """Ask a replica's process to end."""

    replica: ReplicaID


@dataclass(frozen=True)
class KillReplica:
    """End a replica's process now."""

    replica: ReplicaID


@dataclass(frozen=True)
class SendRank:
    """Tell a replica its rank, and how many replicas are wanted."""

    replica: ReplicaID
    rank: ReplicaRank
    world_size: int


Command = StartReplica | SendRank | DrainReplica | SuspectReplica | RetireReplica | StopReplica | KillReplica
