"""Salver's own policies as classes: to be named in a config, and to be subclassed."""

from random import Random
from typing import Any

from salver.handle.policies.hashing import NUM_FALLBACK_REPLICAS, NUM_VIRTUAL_NODES, HashRing
from salver.handle.policies.prefix import PREFIX_LENGTH, prefix_in
from salver.handle.request_router.api import PendingRequest, RequestRouter, RunningReplica
from salver.handle.request_router.mixins import FIFOMixin, LocalityMixin, MultiplexMixin

Groups = list[list[RunningReplica]]


class PowerOfTwoChoicesRequestRouter(FIFOMixin, LocalityMixin, MultiplexMixin, RequestRouter):
    """The less loaded of two replicas that are drawn by chance; a request's own model and near replicas go first."""

    def initialize_state(self) -> None:
        """Part of RequestRouter."""
        self._random = Random()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> Groups:
        """Part of RequestRouter."""
        model = "" if pending_request is None else pending_request.metadata.multiplexed_model_id
        if model:
            return self.rank_replicas_via_multiplex(candidate_replicas, model)
        if self._caller.place.prefers_near:
            return self.rank_replicas_via_locality(candidate_replicas)
        drawn = self._random.sample(candidate_replicas, min(2, len(candidate_replicas)))
        return [[each] for each in sorted(drawn, key=lambda each: each.queue_len)]


class RoundRobinRouter(FIFOMixin, RequestRouter):
    """Each replica in its turn."""

    def initialize_state(self) -> None:
        """Part of RequestRouter."""
        self._next = 0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> Groups:
        """Part of RequestRouter."""
        start = self._next % len(candidate_replicas)
        self._next += 1
        return [[each] for each in candidate_replicas[start:] + candidate_replicas[:start]]


class LeastLoadedRouter(FIFOMixin, RequestRouter):
    """The replica with the fewest requests."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> Groups:
        """Part of RequestRouter."""
        return [[each] for each in sorted(candidate_replicas, key=lambda each: each.queue_len)]


class ConsistentHashRouter(FIFOMixin, RequestRouter):
    """The same replica for the same session; for requests without one, by their ids."""

    def initialize_state(
        self, num_virtual_nodes: int = NUM_VIRTUAL_NODES, num_fallback_replicas: int = NUM_FALLBACK_REPLICAS
    ) -> None:
        """Part of RequestRouter; for the arguments see `salver.handle.policies.hashing.ConsistentHash`."""
        self._ring = HashRing(num_virtual_nodes)
        self._num_tried = 1 + num_fallback_replicas

    def key_of(self, pending_request: PendingRequest) -> str:
        """Return what requests that belong together have in common."""
        return pending_request.metadata.session_id or pending_request.metadata.request_id

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> Groups:
        """Part of RequestRouter."""
        if pending_request is None:
            return [candidate_replicas]
        by_name = {each.replica_id.unique_id: each for each in candidate_replicas}
        self._ring.set_members(each.unique_id for each in self.curr_replicas)
        order = [by_name[name] for name in self._ring.preferred(self.key_of(pending_request)) if name in by_name]
        tried, others = order[: self._num_tried], order[self._num_tried :]
        return [*([each] for each in tried), others]


class PrefixAffinityRouter(ConsistentHashRouter):
    """The same replica for requests that begin alike."""

    def initialize_state(  # type: ignore[override]  # every router has its own arguments
        self, argument: int | str = 0, field: str = "", prefix_length: int = PREFIX_LENGTH, **ring: Any
    ) -> None:
        """Part of RequestRouter; for the arguments see `salver.handle.policies.prefix.PrefixAffinity`."""
        super().initialize_state(**ring)
        self._where = (argument, field, prefix_length)

    def key_of(self, pending_request: PendingRequest) -> str:
        """Part of ConsistentHashRouter."""
        return prefix_in(pending_request.args, pending_request.kwargs, *self._where) or super().key_of(pending_request)


POLICY_OF: dict[type, str] = {
    PowerOfTwoChoicesRequestRouter: "power_of_two_choices",
    RoundRobinRouter: "round_robin",
    LeastLoadedRouter: "least_loaded",
    ConsistentHashRouter: "consistent_hash",
    PrefixAffinityRouter: "prefix_affinity",
}
"""Classes that need not run: the policy of the name does the same, without a thread."""
