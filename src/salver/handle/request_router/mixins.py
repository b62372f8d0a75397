"""Rankings that routers of users put together: by distance, by loaded models."""

from collections.abc import Iterable

from salver.handle.policies.locality import tiers
from salver.handle.request_router.api import PendingRequest, RequestRouter, RunningReplica


class LocalityMixin(RequestRouter):
    """Near replicas first."""

    def rank_replicas_via_locality(self, replicas: list[RunningReplica]) -> list[list[RunningReplica]]:
        """Return replicas on this process's node, then those in its zone, then the rest; without empty groups."""
        return tiers(replicas, lambda each: each._channel.entry, self._caller.place)

    def apply_locality_routing(self, pending_request: PendingRequest | None = None) -> list[RunningReplica]:
        """Return the nearest group of all replicas; asked again for the same request, one that reaches further."""
        ranked = self.rank_replicas_via_locality(list(self.curr_replicas.values()))
        return _wider_each_time(ranked, pending_request, "locality_groups")


class MultiplexMixin(RequestRouter):
    """Replicas that have a request's model first."""

    def rank_replicas_via_multiplex(
        self, replicas: list[RunningReplica], multiplexed_model_id: str
    ) -> list[list[RunningReplica]]:
        """Return replicas with the model, then those with the fewest models, then the rest; without empty groups."""
        having = [each for each in replicas if multiplexed_model_id in each.multiplexed_model_ids]
        others = [each for each in replicas if multiplexed_model_id not in each.multiplexed_model_ids]
        fewest = min((len(each.multiplexed_model_ids) for each in others), default=0)
        groups = (
            having,
            [each for each in others if len(each.multiplexed_model_ids) == fewest],
            [each for each in others if len(each.multiplexed_model_ids) > fewest],
        )
        return [group for group in groups if group]

    def apply_multiplex_routing(self, pending_request: PendingRequest | None = None) -> list[RunningReplica]:
        """Return the best group of all replicas for a request's model; asked again, one that reaches further."""
        replicas = list(self.curr_replicas.values())
        model = "" if pending_request is None else pending_request.metadata.multiplexed_model_id
        if not model:
            return replicas
        return _wider_each_time(self.rank_replicas_via_multiplex(replicas, model), pending_request, "model_groups")


class FIFOMixin(RequestRouter):
    """The oldest request first, whatever it is for, which every router of Salver does."""


def _wider_each_time(
    groups: Iterable[list[RunningReplica]], request: PendingRequest | None, note: str
) -> list[RunningReplica]:
    ranked = list(groups)
    if request is None:
        return ranked[0] if ranked else []
    notes = vars(request.routing_context)
    width = notes[note] = notes.get(note, 0) + 1
    return [each for group in ranked[:width] for each in group]
