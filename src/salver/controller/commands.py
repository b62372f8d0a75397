"""What to do. Deciders return these; the executor performs them."""

from dataclasses import dataclass

from salver.controller.desired import Wish
from salver.schema.ids import ReplicaID


@dataclass(frozen=True)
class StartReplica:
    """Start one more replica."""

    wish: Wish


@dataclass(frozen=True)
class DrainReplica:
    """Let a replica finish what it has, taking nothing new."""

    replica: ReplicaID


@dataclass(frozen=True)
class StopReplica:
    """Ask a replica's process to end."""

    replica: ReplicaID


@dataclass(frozen=True)
class KillReplica:
    """End a replica's process now."""

    replica: ReplicaID


Command = StartReplica | DrainReplica | StopReplica | KillReplica
