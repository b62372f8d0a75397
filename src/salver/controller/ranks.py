"""Which of a deployment's replicas is which: ranks 0 to n-1, over all nodes and on each one. Pure.

A replica keeps its rank while it lives, its successor takes the lowest one that is free, and gaps are closed when the
deployment has come to rest.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

from salver.schema.ids import ReplicaID, ReplicaRank

Key = TypeVar("Key", bound=Hashable)

Placed = tuple[str, ReplicaRank]
"""A node and the rank of a replica on it."""


def lowest_free(taken: Collection[int]) -> int:
    """Return the lowest rank that nobody has."""
    return next(rank for rank in range(len(taken) + 1) if rank not in taken)


def on_node(rank: int, node_id: str, others: Iterable[Placed]) -> ReplicaRank:
    """Return the rank of a replica that has come to a node.

    Args:
        others: The deployment's other replicas that have a node.
    """
    placed = list(others)
    here = [each for node, each in placed if node == node_id]
    node_rank = here[0].node_rank if here else lowest_free({each.node_rank for _, each in placed})
    return ReplicaRank(rank, node_rank, lowest_free({each.local_rank for each in here}))


def without_gaps(ranks: Mapping[ReplicaID, Placed]) -> dict[ReplicaID, ReplicaRank]:
    """Return everybody's rank after the gaps are closed, which changes as few as possible."""
    whole = _dense({replica: rank.rank for replica, (_, rank) in ranks.items()})
    nodes = _dense({node: rank.node_rank for node, rank in ranks.values()})
    local: dict[ReplicaID, int] = {}
    for each in nodes:
        local |= _dense({replica: rank.local_rank for replica, (node, rank) in ranks.items() if node == each})
    return {replica: ReplicaRank(whole[replica], nodes[node], local[replica]) for replica, (node, _) in ranks.items()}


def _dense(ranks: dict[Key, int]) -> dict[Key, int]:
    """Give the ranks that are missing below n to those who have n or more."""
    missing = sorted(set(range(len(ranks))) - set(ranks.values()))
    beyond = sorted((key for key, rank in ranks.items() if rank >= len(ranks)), key=ranks.__getitem__)
    return {**ranks, **dict(zip(beyond, missing, strict=True))}
