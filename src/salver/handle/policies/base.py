"""What a policy of routing is: who may have a request, of those who have room."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing


class Policy(ABC):
    """Narrows the choice of a router, which takes the less loaded of two of those that are left.

    Pure: no clock, no chance, no loop. What a policy remembers is its own; every router has its own policy.
    """

    def changed(self, channels: "Sequence[Channel]") -> None:  # noqa: B027 - most policies keep nothing
        """Take note of the replicas that there are from now on."""

    @abstractmethod
    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Return who may have a request; somebody with room, if anybody of `channels` has room.

        So no replica is idle while a request waits, whatever the policy prefers.
        """


def load_of(channel: "Channel") -> int:
    """Return how many requests a replica has, as far as we know."""
    return len(channel.in_flight) + channel.others


def with_room(channels: "Sequence[Channel]") -> "list[Channel]":
    """Return those that may be sent a request now."""
    return [each for each in channels if each.has_room]
