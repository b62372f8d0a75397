"""Policies that look at all replicas: each in its turn, and the one with the least to do."""

from typing import TYPE_CHECKING

from salver.handle.policies.base import Policy, load_of, with_room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing


class RoundRobin(Policy):
    """Each replica in its turn; one that is full is passed over."""

    def __init__(self) -> None:
        self._next = 0

    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Part of Policy."""
        size = len(channels)
        for step in range(size):
            place = (self._next + step) % size
            if channels[place].has_room:
                self._next = place + 1
                return (channels[place],)
        return ()


class LeastLoaded(Policy):
    """The replica with the fewest requests; equals in turn.

    It costs a look at every replica, and callers that know the same all choose the same: two choices do better where
    there are many of either (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996).
    """

    def __init__(self) -> None:
        self._next = 0

    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Part of Policy."""
        free = with_room(channels)
        if not free:
            return ()
        least = min(map(load_of, free))
        equals = [each for each in free if load_of(each) == least]
        self._next += 1
        return (equals[self._next % len(equals)],)
