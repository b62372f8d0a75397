"""How a router that a user wrote takes part in ours: it ranks, we count, wait and send.

Requests stay in the router's queue while user code thinks about them, so that limits, order, cancelling and the
replicas' calls for the next request (docs/design/0002) are as ever. A request waits for the replicas that were named
for it. User code is asked again only when there is something new: room at a replica that it has not judged for this
request yet, or other replicas. There is no timer.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from salver.handle.policies.base import Policy, load_of
from salver.handle.request_router.api import PendingRequest, RunningReplica
from salver.lib.tasks import Tasks
from salver.schema.ids import ReplicaID

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing

Groups = list[list[ReplicaID]]


class Chooser(Protocol):
    """The user's code, at a safe distance."""

    @property
    def max_tasks(self) -> int:
        """Return for how many requests it is asked at once."""

    async def choose(self, replicas: list[RunningReplica], request: PendingRequest) -> Groups | None:
        """Return the ranked replicas; None where user code has failed. Raises nothing."""

    def complain(self, kind: str, problem: str) -> None:
        """Report what is wrong with its answers, once for each kind."""

    def update(self, replicas: Mapping[ReplicaID, RunningReplica]) -> None:
        """Tell it of all replicas."""

    def hook(self, name: str, *args: Any) -> None:
        """Call one of its hooks."""

    def close(self) -> None:
        """Ask it nothing any more."""


class Queue(Protocol):
    """The router, as far as it is needed here."""

    def send_considered(self, outgoing: "Outgoing") -> bool:
        """Send a waiting request if one of its replicas has room."""

    def considered(self) -> None:
        """A request was thought about and waits: there may be too many now."""

    def drop_custom(self) -> None:
        """Choose without the user's code."""


class _Ticket:
    """A request and what user code said of it.

    Attributes:
        groups: The ranked replicas; None until it was asked for the first time.
        declined: Replicas that it was offered and did not name.
        takes_any: User code has failed for it.
        channel: Where it is.
    """

    __slots__ = ("channel", "declined", "groups", "is_thought_about", "named", "outgoing", "request", "takes_any")

    def __init__(self, outgoing: "Outgoing") -> None:
        self.outgoing = outgoing
        self.request = PendingRequest(outgoing)
        self.groups: Groups | None = None
        self.named: set[ReplicaID] = set()
        self.declined: set[ReplicaID] = set()
        self.takes_any = False
        self.is_thought_about = False
        self.channel: Channel | None = None


class CustomRouting(Policy):
    """The policy of a router whose user has written one.

    Args:
        tasks: Owns the tasks in which user code is asked; a few for all requests.
    """

    def __init__(self, chooser: Chooser, queue: Queue, tasks: Tasks) -> None:
        self._chooser = chooser
        self._queue = queue
        self._tasks = tasks
        self._closed = False
        self._tickets: dict[Outgoing, _Ticket] = {}
        self._new: set[Outgoing] = set()
        self._sent: dict[Channel, list[_Ticket]] = {}
        self._agenda: deque[_Ticket] = deque()
        self._num_workers = 0
        self._channels: dict[ReplicaID, Channel] = {}
        self._replicas: dict[ReplicaID, RunningReplica] = {}
        self._broken: set[ReplicaID] = set()

    @property
    def num_new(self) -> int:
        """Return how many requests user code has not answered for yet: they do not wait for room."""
        return len(self._new)

    def is_new(self, outgoing: "Outgoing") -> bool:
        """Say whether user code has not answered for a request yet."""
        return outgoing in self._new

    def consider(self, outgoing: "Outgoing") -> None:
        """Have a request thought about that waits now, for the first time or again."""
        ticket = self._tickets.get(outgoing)
        if ticket is None:
            ticket = self._tickets[outgoing] = _Ticket(outgoing)
            self._new.add(outgoing)
        elif ticket.channel is not None:
            self._sent[ticket.channel].remove(ticket)
            ticket.channel = None
            ticket.request.future = Future()
        self._think_of(ticket)

    def accepts(self, outgoing: "Outgoing", channel: "Channel") -> bool:
        """Say whether a request may go to a replica."""
        ticket = self._tickets.get(outgoing)
        return ticket is not None and (ticket.takes_any or channel.entry.replica in ticket.named)

    def nobody_accepts(self) -> None:
        """There is room that no waiting request may use: ask whether that is so still."""
        for ticket in list(self._tickets.values()):
            if ticket.channel is None:
                self._think_of(ticket)

    def forget(self, outgoing: "Outgoing") -> None:
        """A request that waited is over."""
        self._new.discard(outgoing)
        self._tickets.pop(outgoing, None)

    def gave(self, outgoing: "Outgoing", channel: "Channel") -> None:
        """A request is being sent."""
        ticket = self._tickets[outgoing]
        ticket.channel = channel
        self._new.discard(outgoing)
        self._sent.setdefault(channel, []).append(ticket)
        replica_id = channel.entry.replica
        replica = self._replicas.get(replica_id) or RunningReplica(channel)
        _settle(ticket.request.future, replica)
        self._chooser.hook("on_request_routed", ticket.request, replica_id, replica)
        self._chooser.hook("on_send_request", replica_id)

    def freed(self, channel: "Channel") -> None:
        """A replica has finished a request."""
        sent = self._sent.get(channel, [])
        for ticket in [each for each in sent if channel.in_flight.get(each.outgoing.stream) is not each.outgoing]:
            sent.remove(ticket)
            self._is_over(ticket, channel)
            self._chooser.hook("decrement_queue_len_cache", channel.entry.replica)
            self._chooser.hook("on_new_queue_len_info", channel.entry.replica, load_of(channel))
        if not sent:
            self._sent.pop(channel, None)

    def lost(self, channel: "Channel", channels: "Sequence[Channel]") -> None:
        """A connection broke; those of its requests that may be repeated will wait again."""
        for ticket in self._sent.pop(channel, []):
            self._is_over(ticket, channel)
        self._broken.add(channel.entry.replica)
        self._chooser.hook("on_replica_actor_unavailable", channel.entry.replica)
        self._take(channels)

    def failed(self) -> None:
        """User code cannot be run here."""
        if not self._closed:
            self._queue.drop_custom()

    def close(self) -> None:
        """Ask user code nothing any more."""
        self._closed = True
        self._tickets.clear()
        self._new.clear()
        self._agenda.clear()
        self._chooser.close()

    # Policy

    def changed(self, channels: "Sequence[Channel]") -> None:
        """Part of Policy."""
        self._take(channels)
        for replica in self._broken - self._channels.keys():
            self._chooser.hook("on_replica_actor_died", replica)
        self._broken.clear()

    def shortlist(self, outgoing: "Outgoing", channels: "Sequence[Channel]") -> "Sequence[Channel]":
        """Return the first group with room; nobody while the request must wait."""
        ticket = self._tickets.get(outgoing)
        if ticket is None:
            return ()
        if ticket.takes_any:
            return channels
        for group in ticket.groups or ():
            found = [channel for each in group if (channel := self._channels.get(each)) is not None]
            if any(each.has_room for each in found):
                return found
        return ()

    def _take(self, channels: "Sequence[Channel]") -> None:
        self._channels = {each.entry.replica: each for each in channels}
        self._replicas = {each.entry.replica: RunningReplica(each) for each in channels}
        self._chooser.update(self._replicas)
        for ticket in list(self._tickets.values()):
            if ticket.channel is None:
                ticket.declined.clear()
                if ticket.named.isdisjoint(self._channels):
                    ticket.groups = None
                self._think_of(ticket)

    def _think_of(self, ticket: _Ticket) -> None:
        if ticket.is_thought_about or not self._unjudged(ticket):
            return
        ticket.is_thought_about = True
        self._agenda.append(ticket)
        if self._num_workers < self._chooser.max_tasks:
            self._num_workers += 1
            self._tasks.start(self._work(), name="choose replicas")

    async def _work(self) -> None:
        try:
            while self._agenda:
                ticket = self._agenda.popleft()
                await self._think(ticket)
                ticket.is_thought_about = False
        finally:
            self._num_workers -= 1

    async def _think(self, ticket: _Ticket) -> None:
        while self._waits(ticket) and (asked := self._unjudged(ticket)):
            answer = await self._chooser.choose(asked, ticket.request)
            if not self._waits(ticket):
                return
            self._note(ticket, asked, answer)
            if self._queue.send_considered(ticket.outgoing):
                return
        if self._waits(ticket) and ticket.groups is not None:
            self._new.discard(ticket.outgoing)
            self._queue.considered()

    def _waits(self, ticket: _Ticket) -> bool:
        return ticket.channel is None and self._tickets.get(ticket.outgoing) is ticket

    def _unjudged(self, ticket: _Ticket) -> list[RunningReplica]:
        """Return whom user code is asked about: first all replicas, then those with room that it has not judged."""
        if ticket.takes_any:
            return []
        if ticket.groups is None:
            return list(self._replicas.values())
        return [
            each
            for replica, each in self._replicas.items()
            if each.has_room and replica not in ticket.named and replica not in ticket.declined
        ]

    def _note(self, ticket: _Ticket, asked: Sequence[RunningReplica], answer: Groups | None) -> None:
        first = ticket.groups is None
        groups = ticket.groups = ticket.groups or []
        if answer is None:
            ticket.takes_any = True
            return
        added = [group for each in answer if (group := self._not_named(each, ticket.named))]
        groups += added
        if added:
            return
        ticket.declined.update(each.replica_id for each in asked)
        if first and not ticket.declined.isdisjoint(self._channels):
            ticket.takes_any = True
            self._chooser.complain("no replica", "named no replica that there is when it was asked with all of them")

    def _not_named(self, group: Collection[ReplicaID], named: set[ReplicaID]) -> list[ReplicaID]:
        added = [each for each in dict.fromkeys(group) if each in self._channels and each not in named]
        named.update(added)
        return added

    def _is_over(self, ticket: _Ticket, channel: "Channel") -> None:
        self._tickets.pop(ticket.outgoing, None)
        request_id = ticket.request.metadata.internal_request_id
        self._chooser.hook("on_request_completed", channel.entry.replica, request_id)


def _settle(future: "Future[RunningReplica]", replica: RunningReplica) -> None:
    # It is the user's to look at, and so to cancel, too.
    if not future.done():
        future.set_result(replica)
