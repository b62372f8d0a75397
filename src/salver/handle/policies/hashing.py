"""Affinity by consistent hashing: the same key goes to the same replica, and few keys move when replicas come and go.

The ring is Karger's ("Consistent Hashing and Random Trees", 1997): every replica owns the arcs that end at its points.
The defaults of 100 points and 2 replicas to fall back on are Ray Serve's.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from salver.handle.policies.base import Policy

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing

NUM_VIRTUAL_NODES = 100
NUM_FALLBACK_REPLICAS = 2

KeyOf = Callable[["Outgoing"], str]


class HashRing:
    """Members in the order in which a key prefers them; the same in every process.

    Args:
        num_virtual_nodes: Points of each member; more even out the shares.
    """

    def __init__(self, num_virtual_nodes: int = NUM_VIRTUAL_NODES) -> None:
        self._num_points = num_virtual_nodes
        self._points: dict[str, list[int]] = {}
        self._places: list[int] = []
        self._owners: list[str] = []

    def set_members(self, names: Iterable[str]) -> None:
        """Have these members, and no others."""
        wanted = set(names)
        if wanted == self._points.keys():
            return
        kept = {name: points for name, points in self._points.items() if name in wanted}
        added = {name: self._points_of(name) for name in wanted - kept.keys()}
        self._points = {**kept, **added}
        ring = sorted((point, name) for name, points in self._points.items() for point in points)
        self._places = [point for point, _ in ring]
        self._owners = [name for _, name in ring]

    def preferred(self, key: str) -> Iterator[str]:
        """Yield all members, those that a key prefers first."""
        start = bisect_right(self._places, _hash(key))
        owners = self._owners
        seen: set[str] = set()
        for index in range(start, start + len(owners)):
            owner = owners[index % len(owners)]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == len(self._points):
                    return

    def _points_of(self, name: str) -> list[int]:
        return [_hash(f"{name}/{number}") for number in range(self._num_points)]


class ConsistentHash(Policy):
    """The replica that a request's key prefers, if it has room; else one of the next; else any.

    Args:
        num_fallback_replicas: How many of the next on the ring are tried before all others are equal.
        key_of: Returns a request's key; its session or, where it has none, its own id.
    """

    def __init__(
        self,
        num_virtual_nodes: int = NUM_VIRTUAL_NODES,
        num_fallback_replicas: int = NUM_FALLBACK_REPLICAS,
        key_of: KeyOf | None = None,
    ) -> None:
        self._ring = HashRing(num_virtual_nodes)
        self._num_tried = 1 + num_fallback_replicas
        self._key_of = key_of or session_or_request
        self._channels: dict[str, Channel] = {}

    def changed(self, channels: "Sequence[Channel]") -> None:
        """Part of Policy."""
        self._channels = {each.entry.replica.unique_id: each for each in channels}
        self._ring.set_members(self._channels)

    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Part of Policy."""
        for _, name in zip(range(self._num_tried), self._ring.preferred(self._key_of(outgoing)), strict=False):
            channel = self._channels[name]
            if channel.has_room:
                return (channel,)
        return channels


def session_or_request(outgoing: "Outgoing") -> str:
    """Return what a request has in common with those that should go where it goes."""
    return outgoing.hints.session_id or outgoing.describe().request_id


def _hash(text: str) -> int:
    # Not Python's own, which is another in each process.
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
