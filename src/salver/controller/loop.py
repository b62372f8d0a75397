"""observe → decide → act: the only loop. It looks only at deployments that something touched."""

import asyncio
import heapq
from collections import deque
from typing import Protocol

from salver.controller.commands import Command
from salver.controller.desired import Desired
from salver.controller.events import Event
from salver.controller.observed import Observed
from salver.controller.publisher import Publisher
from salver.controller.reconcile import reconcile
from salver.lib.clock import Clock
from salver.lib.tasks import Tasks
from salver.schema.ids import DeploymentID


class Performer(Protocol):
    """Who performs commands: the executor, or a test."""

    def perform(self, command: Command) -> None:
        """Begin a command."""


class ControlLoop:
    """Feeds events to `observed`, decides, and hands commands to whoever performs them.

    Args:
        publisher: Told which deployments changed.
        clock: Time for decisions and deadlines.
        tasks: Owns the alarm for the next deadline.
    """

    def __init__(self, desired: Desired, observed: Observed, publisher: Publisher, clock: Clock, tasks: Tasks) -> None:
        self._desired = desired
        self._observed = observed
        self._publisher = publisher
        self._clock = clock
        self._tasks = tasks
        self._performer: Performer | None = None
        self._events: deque[Event] = deque()
        self._due: list[tuple[float, DeploymentID]] = []
        self._next_look: dict[DeploymentID, float] = {}
        """Other entries of `_due` are out of date."""
        self._wake = asyncio.Event()
        self._watchers: list[asyncio.Event] = []

    def act_through(self, performer: Performer) -> None:
        """Hand commands to this performer."""
        self._performer = performer

    def feed(self, event: Event) -> None:
        """Note an event; it is looked at in the next tick."""
        self._events.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Tick whenever something happened or a deadline has come, for ever."""
        while True:
            self.tick()
            await self._next_reason()

    def tick(self) -> None:
        """Look at everything that was touched, until nothing more happens at once."""
        touched: set[DeploymentID] = set()
        now = self._clock.now()
        fresh = self._take_due(now)
        while fresh or self._events:
            while self._events:
                fresh |= self._observed.apply(self._events.popleft(), now)
            touched |= fresh
            self._act([command for each in sorted(fresh) for command in self._decide(each, now)])
            fresh = set()
        if touched:
            self._publisher.publish(touched, now)
            for deployment in touched:
                if self._desired.wish_for(deployment) is None:
                    self._observed.forget(deployment)
            self._announce_tick()

    async def until_changed(self) -> None:
        """Wait for the next tick that touched anything."""
        watcher = asyncio.Event()
        self._watchers.append(watcher)
        await watcher.wait()

    def _decide(self, deployment: DeploymentID, now: float) -> list[Command]:
        plan = reconcile(self._desired.wish_for(deployment), self._observed.view(deployment), now)
        if plan.look_again_at is None:
            self._next_look.pop(deployment, None)
        elif self._next_look.get(deployment) != plan.look_again_at:
            self._next_look[deployment] = plan.look_again_at
            heapq.heappush(self._due, (plan.look_again_at, deployment))
        return plan.commands

    def _act(self, commands: list[Command]) -> None:
        assert self._performer is not None, "act_through() comes first"
        for command in commands:
            self._performer.perform(command)

    def _take_due(self, now: float) -> set[DeploymentID]:
        due: set[DeploymentID] = set()
        while self._due and self._due[0][0] <= now:
            when, deployment = heapq.heappop(self._due)
            if self._next_look.get(deployment) == when:
                del self._next_look[deployment]
                due.add(deployment)
        return due

    async def _next_reason(self) -> None:
        """Wait for an event or the next deadline."""
        if not self._due:
            await self._wake.wait()
        else:
            await self._wait_for_either(self._due[0][0])
        self._wake.clear()

    async def _wait_for_either(self, when: float) -> None:
        alarm = self._tasks.start(self._ring_at(when), name="next deadline")
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _ring_at(self, when: float) -> None:
        await self._clock.sleep_until(when)
        self._wake.set()

    def _announce_tick(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set()
