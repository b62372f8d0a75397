"""What the connections of a proxy share."""

from typing import TYPE_CHECKING, Protocol

from salver.lib.deadlines import Deadlines
from salver.proxy.batches import Batches
from salver.proxy.crowd import Guest
from salver.proxy.heads import Heads
from salver.proxy.places import Places
from salver.schema.http import HTTPOptions
from salver.schema.outcomes import Outcome

if TYPE_CHECKING:
    from salver.proxy.deadlines import Abandoned


class Site(Protocol):
    """The proxy, as its connections see it.

    Attributes:
        places: Who answers which path.
        heads: The heads of replicas' answers.
        date: The current `date` header line.
        options: How long requests and silence may take.
        deadlines: When requests are over.
        batches: Who has pieces of streams to write.
        unattended: Requests that go on although their clients have left.
        scheme: "http" or "https".
        draining: Connections end when they have answered what was asked.
    """

    places: Places
    heads: Heads
    date: bytes
    options: HTTPOptions
    deadlines: Deadlines
    batches: Batches
    unattended: "set[Abandoned]"
    scheme: str
    draining: bool

    def own_answer(self, path: str) -> Outcome | None:
        """Return the answer for the proxy's own paths, or None."""

    def opened(self, guest: Guest) -> None:
        """A client has come."""

    def closed(self, guest: Guest) -> None:
        """A client has gone."""

    def woke(self, guest: Guest) -> None:
        """A client that was resting has sent something."""

    def settled(self) -> None:
        """A request whose client had left is over."""
