"""Ranks: dense where nothing moves, kept where a replica lives on."""

from hypothesis import given
from hypothesis import strategies as st

from salver.controller.lifecycle import Stage
from salver.controller.ranks import Placed, lowest_free, on_node, without_gaps
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank
from tests.unit.controller.scene import Scene, wish

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


# In a deployment


def ranked(scene: Scene) -> dict[str, int]:
    return {each.id.unique_id: each.rank.rank for each in scene.view.in_stage(Stage.RUNNING)}


def ranked_deployment(replicas: int) -> Scene:
    """Return a deployment whose replicas were told their ranks."""
    scene = Scene(wish(replicas))
    scene.look()
    names = [f"r{number + 1}" for number in range(replicas)]
    scene.joined(*names)
    scene.placed(*names)
    assert scene.look() == [f"rank {name} {rank}/{replicas}" for rank, name in enumerate(names)]
    scene.ready(*names)
    assert scene.look() == []
    return scene


def test_a_replica_is_told_its_rank_once_it_has_a_node_and_listens() -> None:
    scene = Scene(wish(2))
    scene.look()
    scene.joined("r1")
    assert scene.look() == []
    scene.placed("r1", "r2")
    assert scene.look() == ["rank r1 0/2"]
    scene.joined("r2")
    assert scene.look() == ["rank r2 1/2"]


def test_the_replacement_of_a_replica_that_crashed_takes_its_rank() -> None:
    scene = ranked_deployment(3)
    scene.exit("r2")
    assert scene.look() == ["start r4"]
    scene.joined("r4")
    scene.ready("r4")
    assert scene.look() == ["rank r4 1/3"]
    assert ranked(scene) == {"r1": 0, "r3": 2, "r4": 1}


def test_the_gap_that_a_smaller_deployment_leaves_is_closed_when_the_last_one_is_gone() -> None:
    scene = ranked_deployment(3)
    scene.want(wish(2))
    assert sorted(scene.look()) == ["drain r1", "rank r1 0/2", "rank r2 1/2", "rank r3 2/2"]
    scene.drained("r1")
    assert scene.look() == ["stop r1"]
    scene.exit("r1")
    assert scene.look() == ["rank r3 0/2"]
    assert ranked(scene) == {"r2": 1, "r3": 0}


def test_an_update_ends_with_dense_ranks() -> None:
    scene = ranked_deployment(3)
    scene.want(wish(3, "v2"))
    launched = 3
    while scene.stages() != {f"r{number}": "running" for number in (4, 5, 6)}:
        scene.look()
        for name, stage in scene.stages().items():
            if stage == "starting":
                scene.joined(name)
                scene.ready(name)
                launched += 1
            elif stage == "draining":
                scene.leave(name)
        scene.look(after_s=1)
        assert launched < 10
    assert sorted(ranked(scene).values()) == [0, 1, 2]


def test_who_is_told_how_many_replicas_are_wanted_is_told_when_that_changes() -> None:
    scene = ranked_deployment(1)
    scene.want(wish(2))
    assert scene.look() == ["start r2", "rank r1 0/2"]


def test_ranks_survive_a_new_version_and_a_replica_that_never_came_to_be() -> None:
    scene = ranked_deployment(2)
    scene.want(wish(3))
    scene.look()
    scene.refuse("r3")
    scene.look()
    assert ranked(scene) == {"r1": 0, "r2": 1}
