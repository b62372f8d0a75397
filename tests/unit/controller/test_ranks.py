"""Ranks: dense where nothing moves, kept where a replica lives on."""

from hypothesis import given
from hypothesis import strategies as st

from salver.controller.ranks import Placed, lowest_free, on_node, without_gaps
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank

NODES = st.sampled_from(["a", "b", "c"])


def replica(number: int) -> ReplicaID:
    return ReplicaID(f"r{number}", DeploymentID("Model", "shop"))


def started(nodes: list[str]) -> dict[ReplicaID, Placed]:
    """Return replicas that came to these nodes one after the other."""
    placed: dict[ReplicaID, Placed] = {}
    for number, node in enumerate(nodes):
        rank = lowest_free({each.rank for _, each in placed.values()})
        placed[replica(number)] = (node, on_node(rank, node, placed.values()))
    return placed


def test_the_lowest_free_rank_is_taken_first() -> None:
    assert [lowest_free(taken) for taken in (set(), {0}, {1, 2}, {0, 2}, {0, 1, 2})] == [0, 1, 0, 1, 3]


def test_ranks_count_over_all_nodes_and_on_each_one() -> None:
    ranks = [rank for _, rank in started(["a", "b", "a", "b", "c"]).values()]
    assert ranks == [
        ReplicaRank(0, 0, 0),
        ReplicaRank(1, 1, 0),
        ReplicaRank(2, 0, 1),
        ReplicaRank(3, 1, 1),
        ReplicaRank(4, 2, 0),
    ]


def test_whoever_is_beyond_the_end_closes_the_gap_and_nobody_else_moves() -> None:
    placed = started(["a", "a", "a", "a"])
    del placed[replica(1)]
    after = without_gaps(placed)
    assert after == {
        replica(0): ReplicaRank(0, 0, 0),
        replica(2): ReplicaRank(2, 0, 2),
        replica(3): ReplicaRank(1, 0, 1),
    }


def test_a_node_that_lost_its_last_replica_leaves_no_gap() -> None:
    placed = started(["a", "b", "c"])
    del placed[replica(0)]
    assert without_gaps(placed) == {replica(1): ReplicaRank(1, 1, 0), replica(2): ReplicaRank(0, 0, 0)}


@given(nodes=st.lists(NODES, max_size=12), gone=st.sets(st.integers(0, 11)), more=st.lists(NODES, max_size=4))
def test_ranks_are_dense_at_rest_and_change_as_little_as_possible(
    nodes: list[str], gone: set[int], more: list[str]
) -> None:
    placed = started(nodes)
    for number in gone:
        placed.pop(replica(number), None)
    for number, node in enumerate(more, len(nodes)):
        rank = lowest_free({each.rank for _, each in placed.values()})
        placed[replica(number)] = (node, on_node(rank, node, placed.values()))
    after = without_gaps(placed)
    assert sorted(each.rank for each in after.values()) == list(range(len(placed)))
    by_node: dict[str, list[ReplicaRank]] = {}
    for each, new in after.items():
        by_node.setdefault(placed[each][0], []).append(new)
    assert sorted({rank.node_rank for rank in after.values()}) == list(range(len(by_node)))
    for ranks in by_node.values():
        assert len({rank.node_rank for rank in ranks}) == 1
        assert sorted(rank.local_rank for rank in ranks) == list(range(len(ranks)))
    moved = [each for each, (_, rank) in placed.items() if after[each].rank != rank.rank]
    assert len(moved) == sum(rank.rank >= len(placed) for _, rank in placed.values())
    assert without_gaps({each: (placed[each][0], rank) for each, rank in after.items()}) == after
