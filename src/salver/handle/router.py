"""Which replica gets a request: exact counts, two choices, and a queue that a free replica takes from at once.

There is no timer here. A request waits only while every replica is full, and each way for a replica to stop being full
is an event: an answer of ours, a ROOM frame, a new replica. The time matters only for the retries of lost requests.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from salver.handle.channel import Channel
from salver.handle.multiplex_affinity import ModelAffinity
from salver.handle.outgoing import Outgoing
from salver.handle.retry_budget import RetryBudget
from salver.handle.waiting import WaitingByPriority
from salver.schema.errors import BackPressureError, DeploymentUnavailableError, SalverError
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import ReplicaEntry, Replicas

OpenChannel = Callable[[ReplicaEntry, "Router"], Channel]

_FEW = 64
"""So many abandoned requests may stay in the queue whatever its length."""


class Router:
    """Routes the requests of this process to one deployment.

    Args:
        deployment: Where to.
        open_channel: Makes the channel to a replica.
        random: Source of the two choices.
        now: Tells monotonic seconds.
    """

    def __init__(
        self,
        deployment: DeploymentID,
        open_channel: OpenChannel,
        random: Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deployment = deployment
        self._open_channel = open_channel
        self._random = random.random
        self._channels: dict[ReplicaID, Channel] = {}
        self._choices: list[Channel] = []
        self._waiting: deque[Outgoing] | WaitingByPriority = deque()
        self._num_waiting = 0
        self._num_routed = 0
        self._affinity: ModelAffinity[Channel] = ModelAffinity(self._random)
        self._now = now
        self._budget = RetryBudget(now())
        self._set: Replicas | None = None

    @property
    def num_waiting(self) -> int:
        """Return how many requests wait for a replica."""
        return self._num_waiting

    @property
    def num_replicas(self) -> int:
        """Return how many replicas take requests."""
        return len(self._choices)

    def route(self, outgoing: Outgoing) -> None:
        """Give a request to a replica now, or to the next one that has room."""
        self._num_routed = outgoing.order = self._num_routed + 1
        if not self._num_waiting:
            channel = self._choose_for(outgoing) if outgoing.hints.multiplexed_model_id else self._choose()
            if channel is not None:
                channel.send(outgoing)
                return
        state = self._set
        if state is None:
            self._waiting.append(outgoing)
            self._num_waiting += 1
        elif not self._choices and state.unavailable is not None:
            _refuse(outgoing, DeploymentUnavailableError(self.deployment, state.unavailable))
        elif 0 <= state.max_queued_requests <= self._num_waiting:
            self._refuse_one(outgoing, state)
        else:
            self._waiting.append(outgoing)
            self._num_waiting += 1

    def cancel(self, outgoing: Outgoing) -> None:
        """Stop a request that was routed, whether it waits, is with a replica or is over."""
        if outgoing.abandoned:
            return
        outgoing.abandoned = True
        if outgoing.channel is not None:
            outgoing.channel.cancel(outgoing)
            return
        # It stays in the queue and is skipped there: searching for it would cost what the queue is long.
        self._num_waiting -= 1
        if len(self._waiting) > 2 * self._num_waiting + _FEW:
            self._keep_waiting(each for each in self._waiting if not each.abandoned)

    def update(self, replicas: Replicas) -> None:
        """Take a new snapshot of the deployment's replicas."""
        first, self._set = self._set is None, replicas
        if replicas.request_priorities != isinstance(self._waiting, WaitingByPriority):
            self._keep_waiting(sorted(self._waiting, key=lambda each: each.order))
        entries = {entry.replica: entry for entry in replicas.replicas}
        for replica in [each for each in self._channels if each not in entries]:
            channel = self._channels.pop(replica)
            self._affinity.gone(channel)
            channel.retire()
        for replica, entry in entries.items():
            known = self._channels.get(replica)
            if known is None or known.closed:
                known = self._channels[replica] = self._open_channel(entry, self)
            else:
                known.entry, known.limit = entry, entry.max_ongoing_requests
            self._affinity.told(known, entry.multiplexed_model_ids)
        self._choices = list(self._channels.values())
        if not self._choices and replicas.unavailable is not None:
            self._refuse_waiting(replicas.unavailable)
        self._pump()
        if first:
            self._refuse_excess(replicas)

    def close(self) -> None:
        """Close all channels for good; what waits or comes later is refused, what is in flight is lost."""
        reason = "this process has left the instance"
        channels, self._channels, self._choices = self._channels, {}, []
        self._set = Replicas(unavailable=reason)
        self._refuse_waiting(reason)
        for channel in channels.values():
            channel.close()

    # ChannelOwner

    def on_freed(self, channel: Channel) -> None:
        """Give the freed place to the oldest waiting request; part of ChannelOwner."""
        if self._num_waiting and channel.has_room and (outgoing := self._next_waiting(channel)) is not None:
            channel.send(outgoing)

    def on_room(self, channel: Channel) -> None:
        """Use a held slot, or pass it on; part of ChannelOwner."""
        outgoing = self._next_waiting(channel) if channel.limit else None
        if outgoing is None:
            channel.pass_on()
        else:
            channel.use_held(outgoing, more_waiting=self._num_waiting > 0)

    def on_rejected(self, outgoing: Outgoing) -> None:
        """Let a request wait again, and look for room elsewhere; part of ChannelOwner."""
        if outgoing.channel is not None and outgoing.hints.multiplexed_model_id:
            self._affinity.refused(outgoing.channel, outgoing.hints.multiplexed_model_id)
        self._wait_again(outgoing)
        self._seek_room()

    def on_full(self) -> None:
        """Look for room elsewhere; part of ChannelOwner."""
        self._seek_room()

    def on_returned(self, outgoing: Outgoing) -> None:
        """Send a request elsewhere, before all that came later; part of ChannelOwner."""
        channel = None if outgoing.abandoned else self._choose_for(outgoing)
        if channel is None:
            self._wait_again(outgoing)
        else:
            channel.send(outgoing)

    def may_retry(self) -> bool:
        """Pay for a retry, if the requests of late were enough; part of ChannelOwner."""
        return self._budget.take(self._num_routed, self._now())

    def on_channel_closed(self, channel: Channel) -> None:
        """Stop choosing a replica whose connection broke; part of ChannelOwner."""
        if self._channels.get(channel.entry.replica) is channel:
            del self._channels[channel.entry.replica]
            self._affinity.gone(channel)
            self._choices = list(self._channels.values())
        self._seek_room()

    def _choose_for(self, outgoing: Outgoing) -> Channel | None:
        model_id = outgoing.hints.multiplexed_model_id
        if not model_id:
            return self._choose()
        channel = self._affinity.choose(model_id, self._choices)
        if channel is not None:
            self._affinity.sent(channel, model_id)
        return channel

    def _choose(self) -> Channel | None:
        choices = self._choices
        size = len(choices)
        if size == 1:
            only = choices[0]
            return only if only.has_room else None
        if size == 0:
            return None
        first = int(self._random() * size)
        second = int(self._random() * (size - 1))
        second += second >= first
        a, b = choices[first], choices[second]
        if len(b.in_flight) + b.others < len(a.in_flight) + a.others:
            a, b = b, a
        if a.has_room:
            return a
        if b.has_room:
            return b
        return min(
            (each for each in choices if each.has_room),
            key=lambda each: len(each.in_flight) + each.others,
            default=None,
        )

    def _next_waiting(self, channel: Channel | None = None) -> Outgoing | None:
        """Take a request from the queue: the oldest, or for a given channel one for a model that is there."""
        while self._waiting:
            outgoing = self._waiting.popleft()
            if not outgoing.abandoned:
                self._num_waiting -= 1
                if channel is not None and outgoing.hints.multiplexed_model_id:
                    return self._swap_for(channel, outgoing)
                return outgoing
        return None

    def _swap_for(self, channel: Channel, oldest: Outgoing) -> Outgoing:
        """Return who goes to a channel in place of the oldest, who stays the oldest then."""
        waiting = self._waiting
        if isinstance(waiting, WaitingByPriority):
            # Who is more urgent goes first, whatever the replica holds.
            self._affinity.sent(channel, oldest.hints.multiplexed_model_id)
            return oldest
        waiting.appendleft(oldest)
        index = self._affinity.pick(channel, waiting)
        outgoing = waiting[index]
        del waiting[index]
        if outgoing.hints.multiplexed_model_id:
            self._affinity.sent(channel, outgoing.hints.multiplexed_model_id)
        return outgoing

    def _seek_room(self) -> None:
        """Ask one more replica for room, if requests wait and one may have it.

        The requests stay here meanwhile, so that whoever calls back first gets one. Were they sent from one full
        replica to the next, two callers could hold for ever the slots that each other's requests are refused for.
        """
        if self._num_waiting and (channel := self._choose()) is not None and not channel.ask_for_room():
            outgoing = self._next_waiting(channel)
            if outgoing is not None:
                channel.send(outgoing)

    def _wait_again(self, outgoing: Outgoing) -> None:
        outgoing.channel = None
        if outgoing.abandoned:
            return
        reason = self._set.unavailable if self._set is not None else None
        if not self._choices and reason is not None:
            _refuse(outgoing, DeploymentUnavailableError(self.deployment, reason))
            return
        self._num_waiting += 1
        waiting = self._waiting
        if isinstance(waiting, WaitingByPriority):
            waiting.append(outgoing)
            return
        place = next((index for index, each in enumerate(waiting) if each.order > outgoing.order), len(waiting))
        waiting.insert(place, outgoing)

    def _pump(self) -> None:
        while self._num_waiting and (channel := self._choose()) is not None:
            outgoing = self._next_waiting(channel)
            if outgoing is None:
                return
            channel.send(outgoing)

    def _refuse_waiting(self, reason: str) -> None:
        while (outgoing := self._next_waiting()) is not None:
            _refuse(outgoing, DeploymentUnavailableError(self.deployment, reason))

    def _refuse_excess(self, state: Replicas) -> None:
        """Refuse the youngest of those that came before the limit of the queue was known."""
        waiting = [each for each in self._waiting if not each.abandoned]
        if state.max_queued_requests < 0 or len(waiting) <= state.max_queued_requests:
            return
        excess = waiting[state.max_queued_requests :]
        self._keep_waiting(waiting[: state.max_queued_requests])
        self._num_waiting = len(self._waiting)
        for outgoing in excess:
            _refuse(outgoing, self._backpressure(state))

    def _refuse_one(self, outgoing: Outgoing, state: Replicas) -> None:
        """Refuse a newcomer, or one that waits and is less urgent."""
        waiting = self._waiting
        displaced = waiting.displaced_by(outgoing) if isinstance(waiting, WaitingByPriority) else None
        if displaced is not None:
            waiting.append(outgoing)
        _refuse(displaced or outgoing, self._backpressure(state))

    def _keep_waiting(self, waiting: Iterable[Outgoing]) -> None:
        by_priority = self._set is not None and self._set.request_priorities
        self._waiting = WaitingByPriority(waiting, self._now) if by_priority else deque(waiting)

    def _backpressure(self, state: Replicas) -> BackPressureError:
        return BackPressureError(
            self._num_waiting,
            state.max_queued_requests,
            state.backpressure_status,
            state.backpressure_retry_after_s,
        )


def _refuse(outgoing: Outgoing, error: SalverError) -> None:
    # Whoever cancels it later must not be taken for one that waits.
    outgoing.abandoned = True
    outgoing.on_refused(error)
