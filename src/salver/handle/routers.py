"""All routers of a process: one per deployment that it calls, made at the first call."""

import asyncio
from functools import partial
from random import Random
from typing import Any
from weakref import WeakSet

import msgspec

from salver.handle.channel import Channel
from salver.handle.link import ControllerLink
from salver.handle.policies.locality import Place
from salver.handle.request_router.api import Caller
from salver.handle.request_router.custom import CustomRouting
from salver.handle.request_router.user_router import UserRouter
from salver.handle.router import Router
from salver.lib.tasks import Tasks
from salver.schema.application import RouterSpec
from salver.schema.ids import DeploymentID
from salver.schema.topics import ReplicaEntry, Replicas, TopicValue, replicas_topic
from salver.transport.sockets import Dial, dial
from salver.transport.wire import VERSION, Hello


class Routers:
    """The routers of a process, fed by the controller's snapshots.

    Args:
        role: What this process is; replicas read it in the greeting.
        name: This process's name.
        dial: Opens connections to replicas.
        place: Where this process is.

    Attributes:
        tasks: Owns what works for calls in the background.
    """

    def __init__(
        self,
        link: ControllerLink,
        *,
        role: str,
        name: str,
        tasks: Tasks,
        dial: Dial = dial,
        place: Place = Place(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self._link = link
        self._place = place
        self._dial = dial
        self.tasks = tasks
        self._greeting = msgspec.msgpack.encode(Hello(VERSION, role, name))
        self._routers: dict[DeploymentID, Router] = {}
        self._updates: dict[DeploymentID, partial[None]] = {}
        self._users: dict[DeploymentID, WeakSet[Any]] = {}
        self._random = Random()

    def get(self, deployment: DeploymentID) -> Router:
        """Return the router of a deployment."""
        router = self._routers.get(deployment)
        if router is None:
            router = self._routers[deployment] = self.apart(deployment)
            update = self._updates[deployment] = partial(_update, router)
            self._link.subscribe(replicas_topic(deployment), update)
        return router

    def find(self, deployment: DeploymentID) -> Router | None:
        """Return the router of a deployment that was called; may be asked in any thread."""
        return self._routers.get(deployment)

    def use(self, deployment: DeploymentID, user: object) -> None:
        """Take note of who needs a deployment's router, for as long as it lives; may be called in any thread."""
        self._users.setdefault(deployment, WeakSet()).add(user)

    def leave(self, deployment: DeploymentID, user: object) -> None:
        """Close the router that nobody else needs: what waits is refused, what is with a replica is finished."""
        users = self._users.get(deployment)
        if users is not None:
            users.discard(user)
        if not users and (router := self._routers.pop(deployment, None)) is not None:
            self._users.pop(deployment, None)
            self._link.unsubscribe(replicas_topic(deployment), self._updates.pop(deployment))
            router.update(Replicas(unavailable="its handles in this process were shut down"))

    def apart(self, deployment: DeploymentID) -> Router:
        """Return a router that shares nothing with others, and is told its replicas by whoever asked for it."""
        return Router(deployment, self._open_channel, self._random, place=self._place, run_custom=self._run_custom)

    def close(self) -> None:
        """Close all connections to replicas."""
        for deployment, router in self._routers.items():
            # What the controller still says would bring a closed router back to life.
            self._link.unsubscribe(replicas_topic(deployment), self._updates[deployment])
            router.close()
        self._routers.clear()
        self._updates.clear()

    def _open_channel(self, entry: ReplicaEntry, router: Router) -> Channel:
        return Channel(entry, router, self.tasks, self._greeting, self._dial)

    def _run_custom(self, spec: RouterSpec, router: Router) -> CustomRouting:
        caller = Caller(router.deployment, self._place, lambda: router.num_waiting)
        chooser = UserRouter(spec, caller, asyncio.get_running_loop())
        custom = CustomRouting(chooser, router, self.tasks)
        chooser.start(on_failed=custom.failed)
        return custom


def _update(router: Router, value: TopicValue) -> None:
    if isinstance(value, Replicas):
        router.update(value)
