"""Which replica gets a request: exact counts, two choices, and a queue that a free replica takes from at once.

There is no timer here. A request waits only while every replica is full, and each way for a replica to stop being full
is an event: an answer of ours, a ROOM frame, a new replica. Time matters to retries and to priorities only.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random

from salver.handle.channel import Channel
from salver.handle.multiplex_affinity import ModelAffinity
from salver.handle.outgoing import Outgoing
from salver.handle.policies import TWO_CHOICES, policy_for
from salver.handle.policies.base import Policy, load_of
from salver.handle.policies.locality import Locality, Place
from salver.handle.request_router.custom import CustomRouting
from salver.handle.retry_budget import RetryBudget
from salver.handle.waiting import WaitingByPriority, WaitingInOrder
from salver.schema.application import RouterSpec
from salver.schema.errors import BackPressureError, DeploymentUnavailableError, SalverError
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.topics import ReplicaEntry, Replicas

OpenChannel = Callable[[ReplicaEntry, "Router"], Channel]
RunCustom = Callable[[RouterSpec, "Router"], CustomRouting]

_FEW = 64
"""So many abandoned requests may stay in the queue whatever its length."""


class Router:
    """Routes the requests of this process to one deployment.

    Args:
        deployment: Where to.
        open_channel: Makes the channel to a replica.
        random: Source of the two choices.
        now: Tells monotonic seconds.
        place: Where this process is.
        run_custom: Runs a router that the user wrote.
    """

    def __init__(
        self,
        deployment: DeploymentID,
        open_channel: OpenChannel,
        random: Random,
        now: Callable[[], float] = time.monotonic,
        place: Place = Place(),  # noqa: B008 - it cannot be changed
        run_custom: RunCustom | None = None,
    ) -> None:
        self.deployment = deployment
        self._open_channel = open_channel
        self._random = random.random
        self._channels: dict[ReplicaID, Channel] = {}
        self._choices: list[Channel] = []
        self._waiting: WaitingInOrder | WaitingByPriority = WaitingInOrder()
        self._num_waiting = 0
        self._num_routed = 0
        self._affinity: ModelAffinity[Channel] = ModelAffinity(self._random)
        self._now = now
        self._budget = RetryBudget(now())
        self._set: Replicas | None = None
        self._place = place
        self._run_custom = run_custom
        self._policy: Policy | None = None
        self._custom: CustomRouting | None = None

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
        if not self._num_waiting and (channel := self._choose(outgoing)) is not None:
            if outgoing.hints.multiplexed_model_id:
                self._affinity.sent(channel, outgoing.hints.multiplexed_model_id)
            channel.send(outgoing)
            return
        state, custom = self._set, self._custom
        if state is not None and not self._choices and state.unavailable is not None:
            self._refuse(outgoing, DeploymentUnavailableError(self.deployment, state.unavailable))
            return
        num_new = custom.num_new if custom is not None else 0
        if state is not None and 0 <= state.max_queued_requests <= self._num_waiting - num_new:
            displaced = self._waiting.displaced_by(outgoing)
            self._refuse(displaced or outgoing, self._backpressure(state))
            if displaced is None:
                return
            self._num_waiting -= 1
        self._wait(outgoing)

    def cancel(self, outgoing: Outgoing) -> None:
        """Stop a request that was routed, whether it waits, is with a replica or is over."""
        if outgoing.abandoned:
            return
        outgoing.abandoned = True
        if outgoing.channel is not None:
            outgoing.channel.cancel(outgoing)
            return
        if self._custom is not None:
            self._custom.forget(outgoing)
        # It stays in the queue and is skipped there: searching for it would cost what the queue is long.
        self._num_waiting -= 1
        if len(self._waiting) > 2 * self._num_waiting + _FEW:
            self._keep_waiting(each for each in self._waiting if not each.abandoned)

    def update(self, replicas: Replicas) -> None:
        """Take a new snapshot of the deployment's replicas."""
        former, self._set = self._set, replicas
        if replicas.request_priorities is not self._waiting.by_priority:
            self._keep_waiting(sorted(self._waiting, key=lambda each: each.order))
        self._take_entries({entry.replica: entry for entry in replicas.replicas})
        self._take_policy(former, replicas)
        if not self._choices and replicas.unavailable is not None:
            self._refuse_waiting(replicas.unavailable)
        self._pump()
        if former is None:
            self._refuse_excess(replicas)

    def close(self) -> None:
        """Close all channels for good; what waits or comes later is refused, what is in flight is lost."""
        reason = "this process has left the instance"
        channels, self._channels, self._choices = self._channels, {}, []
        self._set = Replicas(unavailable=reason)
        self._refuse_waiting(reason)
        self._stop_custom()
        for channel in channels.values():
            channel.close()

    # ChannelOwner

    def on_freed(self, channel: Channel) -> None:
        """Give the freed place to the oldest waiting request; part of ChannelOwner."""
        if self._custom is not None:
            self._custom.freed(channel)
        if self._num_waiting and channel.has_room:
            outgoing = self._next_waiting(channel)
            if outgoing is not None:
                self._send(outgoing, channel)
            elif self._custom is not None:
                self._custom.nobody_accepts()

    def on_room(self, channel: Channel) -> None:
        """Use a held slot, or pass it on; part of ChannelOwner."""
        outgoing = self._next_waiting(channel) if channel.limit else None
        if outgoing is None:
            channel.pass_on()
            if self._custom is not None:
                self._custom.nobody_accepts()
        else:
            if outgoing.hints.multiplexed_model_id:
                self._affinity.sent(channel, outgoing.hints.multiplexed_model_id)
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
        channel = None if outgoing.abandoned else self._choose(outgoing)
        if channel is None:
            self._wait_again(outgoing)
        else:
            self._send(outgoing, channel)

    def may_retry(self) -> bool:
        """Pay for a retry, if the requests of late were enough; part of ChannelOwner."""
        return self._budget.take(self._num_routed, self._now())

    def on_channel_closed(self, channel: Channel) -> None:
        """Stop choosing a replica whose connection broke; part of ChannelOwner."""
        if self._channels.get(channel.entry.replica) is channel:
            del self._channels[channel.entry.replica]
            self._affinity.gone(channel)
            self._choices = list(self._channels.values())
            if self._custom is not None:
                self._custom.lost(channel, self._choices)
            elif self._policy is not None:
                self._policy.changed(self._choices)
        elif self._custom is not None:
            self._custom.freed(channel)
        self._seek_room()

    # Queue of CustomRouting

    def send_considered(self, outgoing: Outgoing, *, was_refused: bool) -> bool:
        """Send a waiting request if one of its replicas has room; part of Queue."""
        channel = self._choose(outgoing)
        if channel is None or (was_refused and channel.ask_for_room()):
            return False
        self._send_waiting(outgoing, channel)
        return True

    def considered(self) -> None:
        """Refuse the youngest if now too many wait; part of Queue."""
        if self._set is not None:
            self._refuse_excess(self._set)

    def drop_custom(self) -> None:
        """Do without the router that the user wrote: it cannot be run here; part of Queue."""
        self._stop_custom()
        if self._set is not None:
            self._take_policy(self._set, self._set)
        self._pump()

    def _choose(self, outgoing: Outgoing) -> Channel | None:
        """Return who should have a request now; None only while every replica that it may go to is full."""
        choices: Sequence[Channel] = self._choices
        if outgoing.hints.multiplexed_model_id and self._custom is None:
            # Whatever the policy is: nothing costs more than to load a model.
            return self._affinity.choose(outgoing.hints.multiplexed_model_id, choices)
        if self._policy is not None:
            choices = self._policy.shortlist(outgoing, choices)
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
        return min((each for each in choices if each.has_room), key=load_of, default=None)

    def _send(self, outgoing: Outgoing, channel: Channel) -> None:
        if outgoing.hints.multiplexed_model_id:
            self._affinity.sent(channel, outgoing.hints.multiplexed_model_id)
        channel.send(outgoing)

    def _take_entries(self, entries: dict[ReplicaID, ReplicaEntry]) -> None:
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

    def _take_policy(self, former: Replicas | None, replicas: Replicas) -> None:
        """Choose as the snapshot says; a policy that is still the same keeps what it knows."""
        spec = replicas.router
        is_new = former is None or spec != former.router
        if is_new:
            self._stop_custom()
            self._policy = None
        if is_new and spec is not None and spec.code is not None and self._run_custom is not None:
            self._policy = self._custom = self._run_custom(spec, self)
            for each in self._waiting:
                if not each.abandoned:
                    self._custom.consider(each)
        elif self._policy is None or isinstance(self._policy, Locality):
            name, kwargs = (spec.policy, spec.kwargs) if spec is not None and spec.policy else (TWO_CHOICES, {})
            self._policy = policy_for(name, kwargs, self._place, replicas.replicas)
        if self._policy is not None:
            self._policy.changed(self._choices)

    def _stop_custom(self) -> None:
        if self._custom is not None:
            self._custom.close()
            self._custom = self._policy = None

    def _next_waiting(self, channel: Channel) -> Outgoing | None:
        """Take the request out of the queue that a replica with room should have."""
        waiting = self._waiting
        if self._custom is not None:
            return self._next_accepting(channel, self._custom)
        outgoing = waiting.first()
        if outgoing is None:
            return None
        if outgoing.hints.multiplexed_model_id and not waiting.by_priority:
            # The oldest, or one for a model that is there already.
            place = self._affinity.pick(channel, waiting)
            outgoing = next(islice(waiting, place, None))
        self._take_out(outgoing)
        return outgoing

    def _next_accepting(self, channel: Channel, custom: CustomRouting) -> Outgoing | None:
        for outgoing in self._waiting:
            if custom.accepts(outgoing, channel):
                self._take_out(outgoing)
                custom.gave(outgoing, channel)
                return outgoing
        return None

    def _take_out(self, outgoing: Outgoing) -> None:
        self._waiting.remove(outgoing)
        self._num_waiting -= 1

    def _first_to_send(self) -> tuple[Outgoing, Channel] | None:
        """Return the first waiting request that somebody has room for."""
        if self._custom is None:
            outgoing = self._waiting.first()
            channel = None if outgoing is None else self._choose(outgoing)
            return None if outgoing is None or channel is None else (outgoing, channel)
        for outgoing in self._waiting:
            if (channel := self._choose(outgoing)) is not None:
                return outgoing, channel
        return None

    def _seek_room(self) -> None:
        """Ask one more replica for room, if requests wait and one may have it.

        The requests stay here meanwhile, so that whoever calls back first gets one. Were they sent from one full
        replica to the next, two callers could hold for ever the slots that each other's requests are refused for.
        """
        found = self._first_to_send()
        if found is not None and not found[1].ask_for_room():
            self._send_waiting(*found)

    def _pump(self) -> None:
        while (found := self._first_to_send()) is not None:
            self._send_waiting(*found)

    def _send_waiting(self, outgoing: Outgoing, channel: Channel) -> None:
        self._take_out(outgoing)
        if self._custom is not None:
            self._custom.gave(outgoing, channel)
        self._send(outgoing, channel)

    def _wait(self, outgoing: Outgoing) -> None:
        self._waiting.append(outgoing)
        self._num_waiting += 1
        if self._custom is not None:
            self._custom.consider(outgoing)

    def _wait_again(self, outgoing: Outgoing) -> None:
        outgoing.channel = None
        if outgoing.abandoned:
            return
        reason = self._set.unavailable if self._set is not None else None
        if self._choices or reason is None:
            self._wait(outgoing)
        else:
            self._refuse(outgoing, DeploymentUnavailableError(self.deployment, reason))

    def _keep_waiting(self, waiting: Iterable[Outgoing]) -> None:
        by_priority = self._set is not None and self._set.request_priorities
        self._waiting = WaitingByPriority(waiting, self._now) if by_priority else WaitingInOrder(waiting)

    def _refuse_waiting(self, reason: str) -> None:
        waiting = [each for each in self._waiting if not each.abandoned]
        self._keep_waiting(())
        self._num_waiting = 0
        for outgoing in waiting:
            self._refuse(outgoing, DeploymentUnavailableError(self.deployment, reason))

    def _refuse_excess(self, state: Replicas) -> None:
        """Refuse those that would be served last of those that came before the limit of the queue was known."""
        custom, limit = self._custom, state.max_queued_requests
        if not 0 <= limit < self._num_waiting - (0 if custom is None else custom.num_new):
            return
        waiting = [each for each in self._waiting if not each.abandoned]
        old = waiting if custom is None else [each for each in waiting if not custom.is_new(each)]
        excess = set(old[limit:])
        self._keep_waiting([each for each in waiting if each not in excess])
        self._num_waiting = len(self._waiting)
        for outgoing in old[limit:]:
            self._refuse(outgoing, self._backpressure(state))

    def _backpressure(self, state: Replicas) -> BackPressureError:
        status, retry_after_s = state.backpressure_status, state.backpressure_retry_after_s
        return BackPressureError(self._num_waiting, state.max_queued_requests, status, retry_after_s)

    def _refuse(self, outgoing: Outgoing, error: SalverError) -> None:
        # Whoever cancels it later must not be taken for one that waits.
        outgoing.abandoned = True
        if self._custom is not None:
            self._custom.forget(outgoing)
        outgoing.on_refused(error)
