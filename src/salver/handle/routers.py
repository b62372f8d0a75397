"""All routers of a process: one per deployment that it calls, made at the first call."""

import asyncio
from random import Random

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
from salver.schema.messages import ReplicaEntry, Replicas, TopicValue, replicas_topic
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
        self._random = Random()

    def get(self, deployment: DeploymentID) -> Router:
        """Return the router of a deployment."""
        router = self._routers.get(deployment)
        if router is None:
            router = self._routers[deployment] = Router(
                deployment, self._open_channel, self._random, place=self._place, run_custom=self._run_custom
            )
            self._link.subscribe(replicas_topic(deployment), lambda value: _update(router, value))
        return router

    def close(self) -> None:
        """Close all connections to replicas."""
        for router in self._routers.values():
            router.close()
        self._routers.clear()

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
