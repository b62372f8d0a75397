"""Replicas that are near: on the caller's node first, then in its zone, then anywhere."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from salver.handle.policies.base import Policy

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing
    from salver.schema.topics import ReplicaEntry

T = TypeVar("T")


class Place(NamedTuple):
    """Where a caller is.

    Attributes:
        node_id: Its node; "" where that is not known.
        availability_zone: Its zone; "" likewise.
        prefers_near: Its requests go to near replicas without being asked to, as a proxy's do.
    """

    node_id: str = ""
    availability_zone: str = ""
    prefers_near: bool = False


class Locality(Policy):
    """The nearest replicas that have room.

    Args:
        always: For all requests, not only for those that ask.
    """

    def __init__(self, place: Place, *, always: bool) -> None:
        self._place = place
        self._always = always
        self._tiers: list[list[Channel]] = []

    def changed(self, channels: "Sequence[Channel]") -> None:
        """Part of Policy."""
        self._tiers = tiers(channels, lambda each: each.entry, self._place)

    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Part of Policy."""
        if self._always or outgoing.hints.prefer_local:
            for tier in self._tiers:
                if any(each.has_room for each in tier):
                    return tier
        return channels


def tiers(replicas: Iterable[T], entry_of: "Callable[[T], ReplicaEntry]", place: Place) -> list[list[T]]:
    """Return replicas by distance, nearest first: same node, same zone, the rest; without empty tiers."""
    sorted_out: tuple[list[T], list[T], list[T]] = ([], [], [])
    for each in replicas:
        entry = entry_of(each)
        if place.node_id and entry.node_id == place.node_id:
            sorted_out[0].append(each)
        elif place.availability_zone and entry.availability_zone == place.availability_zone:
            sorted_out[1].append(each)
        else:
            sorted_out[2].append(each)
    return [tier for tier in sorted_out if tier]
