"""What routers of users put together: rankings by distance and by models, and Salver's own policies as classes."""

import asyncio
from typing import Any, cast

import pytest

from salver.handle.policies.locality import Place
from salver.handle.request_router.api import Caller, PendingRequest, RequestRouter, RunningReplica
from salver.handle.request_router.builtin import POLICY_OF, ConsistentHashRouter, PrefixAffinityRouter, RoundRobinRouter
from salver.handle.request_router.mixins import LocalityMixin, MultiplexMixin
from salver.schema.ids import ReplicaID
from salver.schema.topics import ReplicaEntry
from tests.unit.handle.doubles import DEPLOYMENT, Request


class StubChannel:
    """A channel that has room, and so many requests."""

    def __init__(self, name: str, node_id: str, zone: str, models: tuple[str, ...], load: int) -> None:
        replica = ReplicaID(name, DEPLOYMENT)
        self.entry = ReplicaEntry(replica, name, node_id, 5, models, {"load": load}, {"kind": name}, zone)
        self.in_flight = dict.fromkeys(range(load))
        self.others = 0
        self.has_room = True


def replica(
    name: str, node_id: str = "here", zone: str = "", models: tuple[str, ...] = (), load: int = 0
) -> RunningReplica:
    return RunningReplica(cast("Any", StubChannel(name, node_id, zone, models, load)))


class Own(LocalityMixin, MultiplexMixin, RequestRouter):
    """A router of a user."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> list[list[RunningReplica]]:
        return [candidate_replicas]


def router_of(kind: type[RequestRouter], replicas: list[RunningReplica], **kwargs: Any) -> Any:
    router = kind(Caller(DEPLOYMENT, Place("here", "zone1"), lambda: 3))
    router.initialize_state(**kwargs)
    router._curr_replicas = {each.replica_id: each for each in replicas}
    return router


def names(groups: list[list[RunningReplica]]) -> list[str]:
    return ["".join(each.replica_id.unique_id for each in group) for group in groups]


def test_locality_ranks_same_node_then_same_zone_then_the_rest() -> None:
    replicas = [replica("a", "x", "zone2"), replica("b", "here"), replica("c", "y", "zone1"), replica("d", "z")]
    router = router_of(Own, replicas)
    assert names(router.rank_replicas_via_locality(replicas)) == ["b", "c", "ad"]


def test_asked_again_for_a_request_locality_reaches_further() -> None:
    router = router_of(Own, [replica("a", "x"), replica("b", "here"), replica("c", "y", "zone1")])
    request = PendingRequest(Request())
    reached = [names([router.apply_locality_routing(request)])[0] for _ in range(4)]
    assert reached == ["b", "bc", "bca", "bca"]


def test_multiplex_ranks_those_with_the_model_then_those_with_the_fewest_then_the_rest() -> None:
    replicas = [replica("a", models=("x", "y")), replica("b", models=("m",)), replica("c"), replica("d")]
    router = router_of(Own, replicas)
    assert names(router.rank_replicas_via_multiplex(replicas, "m")) == ["b", "cd", "a"]


def test_the_properties_of_a_router() -> None:
    router = router_of(Own, [replica("a", load=2), replica("b")])
    first, _ = router.curr_replicas.values()
    assert (router.app_name, router.num_pending_requests, router.max_num_routing_tasks) == ("shop", 3, 4)
    assert router.supports_rejection_protocol()
    assert router.replica_queue_len_cache.get(first.replica_id) == 2
    assert router.replica_queue_len_cache.get(ReplicaID("gone", DEPLOYMENT)) is None
    assert router.select_available_replicas() == list(router.curr_replicas.values())
    assert router_of(Own, [replica(str(number)) for number in range(99)]).max_num_routing_tasks == 50


def test_what_is_known_of_a_running_replica() -> None:
    one = replica("a", "here", "zone1", ("m",), 4)
    assert (one.actor_id, one.node_id, one.availability_zone) == ("a", "here", "zone1")
    assert one.multiplexed_model_ids == {"m"}
    assert (one.routing_stats, one.replica_metadata) == ({"load": 4}, {"kind": "a"})
    assert (one.max_ongoing_requests, one.is_cross_language, one.backend_http_endpoint) == (5, False, None)
    assert asyncio.run(one.get_queue_len(deadline_s=1)) == 4


@pytest.mark.parametrize("kind", POLICY_OF)
def test_a_policys_class_ranks_replicas_too_so_that_users_may_subclass_it(kind: type[RequestRouter]) -> None:
    replicas = [replica(name, load=load) for load, name in enumerate("abc")]
    router = router_of(kind, replicas)
    groups = asyncio.run(router.choose_replicas(replicas, PendingRequest(Request("r1", args=("hello",)))))
    assert {each for group in groups for each in group} <= set(replicas)
    assert groups


def test_round_robin_as_a_class_starts_with_the_next() -> None:
    replicas = [replica(name) for name in "abc"]
    router = router_of(RoundRobinRouter, replicas)
    assert [names(asyncio.run(router.choose_replicas(replicas, None)))[0] for _ in range(4)] == ["a", "b", "c", "a"]


def test_consistent_hash_as_a_class_chooses_as_the_policy_does() -> None:
    replicas = [replica(name) for name in "abcdef"]
    request = PendingRequest(Request("r1"))
    router = router_of(ConsistentHashRouter, replicas, num_virtual_nodes=10, num_fallback_replicas=1)
    groups = names(asyncio.run(router.choose_replicas(replicas, request)))
    assert [len(each) for each in groups] == [1, 1, 4]
    alike = router_of(PrefixAffinityRouter, replicas, prefix_length=1)
    for text in ("hello", "h"):
        first = names(asyncio.run(alike.choose_replicas(replicas, PendingRequest(Request(args=(text,))))))[0]
        assert first == names(asyncio.run(alike.choose_replicas(replicas, PendingRequest(Request(args=("hi",))))))[0]
