"""A stand-in controller, real replicas' servers and this process's session, in one process and without sockets."""

import asyncio
from collections.abc import Callable
from typing import Any

from salver.handle import DeploymentHandle
from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.handle.session import Session, set_session
from salver.lib.tasks import Tasks
from salver.replica.server import ReplicaServer
from salver.replica.user_code import UserCode
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import Message, Snapshot, StatusReport, Subscribe, Unsubscribe
from salver.schema.status import ServeStatus
from salver.schema.topics import ReplicaEntry, Replicas, replicas_topic
from salver.transport.memory import MemoryNetwork
from salver.transport.peer import Peer
from salver.transport.sockets import Dial


class Controller:
    """Tells topics; answers nothing."""

    def __init__(self, tasks: Tasks) -> None:
        self.topics: dict[str, Snapshot] = {}
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.peers: list[Peer] = []
        self._tasks = tasks

    def accept(self) -> Peer:
        """Return the sink of a new connection."""
        self.peers.append(Peer(self, role="controller", name="controller", tasks=self._tasks))
        return self.peers[-1]

    def publish(self, topic: str, value: Any, version: int | None = None) -> None:
        """Tell the value of a topic to all."""
        last = self.topics.get(topic)
        number = version if version is not None else (last.version if last else 0) + 1
        self.topics[topic] = Snapshot(topic, number, value)
        for peer in self.peers:
            peer.tell(self.topics[topic])

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Part of Office."""
        return StatusReport(ServeStatus())

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Part of Office."""
        if isinstance(message, Subscribe):
            self.subscribed.append(message.topic)
            if message.topic in self.topics:
                peer.tell(self.topics[message.topic])
        elif isinstance(message, Unsubscribe):
            self.unsubscribed.append(message.topic)

    def on_gone(self, peer: Peer) -> None:
        """Part of Office."""


class World:
    """A controller and replicas, and this process's session."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failed.append(f"{name}: {error!r}"))
        self.network = MemoryNetwork()
        self.controller = Controller(self.tasks)
        self.servers: dict[str, ReplicaServer] = {}
        self.link: ControllerLink

    @property
    def dial(self) -> Dial:
        """Return how this process dials."""
        return self.network.dial

    async def connect(self) -> None:
        """Make a session, as drivers and replicas do."""
        await self.network.listen("controller", self.controller.accept)
        self.link = ControllerLink(role="driver", name="driver", tasks=self.tasks, dial=self.dial)
        await self.link.connect("controller")
        self.routers = Routers(self.link, role="driver", name="driver", tasks=self.tasks, dial=self.dial)
        set_session(Session(asyncio.get_running_loop(), self.link, self.routers, "controller"))

    async def serve(
        self, name: str, servable: Callable[..., Any], *, limit: int = 5, **fields: Any
    ) -> DeploymentHandle[Any]:
        """Start a replica of a deployment and tell of it."""
        entry = await self._start(name, name, "1", servable, limit)
        return self.tell(name, entry, **fields)

    async def serve_several(
        self, name: str, servable: Callable[..., Any], count: int, *, limit: int = 5
    ) -> list[ReplicaEntry]:
        """Start replicas of a deployment, "name-1" and so on, and tell of them."""
        entries = [
            await self._start(name, f"{name}-{number}", str(number), servable, limit) for number in range(1, count + 1)
        ]
        self.tell(name, *entries)
        return entries

    def tell(self, name: str, *entries: ReplicaEntry, **fields: Any) -> DeploymentHandle[Any]:
        """Tell who takes the requests of a deployment."""
        self.controller.publish(replicas_topic(DeploymentID(name, "shop")), Replicas(replicas=entries, **fields))
        return DeploymentHandle(name, "shop")

    async def _start(
        self, deployment: str, name: str, number: str, servable: Callable[..., Any], limit: int
    ) -> ReplicaEntry:
        code = UserCode(servable, max_threads=limit)
        await code.construct((), {})
        server = ReplicaServer(
            code,
            app_name="shop",
            max_ongoing_requests=limit,
            expose_tracebacks=False,
        )
        self.servers[name] = server
        await self.network.listen(name, server.accept)
        return ReplicaEntry(ReplicaID(number, DeploymentID(deployment, "shop")), name, "node", limit)


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run blocking code as a driver's thread does."""
    return await asyncio.wait_for(asyncio.to_thread(work), timeout=10)


async def echo(*args: Any, **kwargs: Any) -> Any:
    """Return what was given."""
    return [*args, kwargs] if kwargs else args[0] if len(args) == 1 else args


class Hanging:
    """Waits until it is told to go on; counts cancellations."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.entered = 0
        self.cancelled = 0

    async def __call__(self, value: Any = None) -> Any:
        """Wait."""
        self.entered += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value


class CodeError(ValueError):
    """Its constructor takes other arguments than its base's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


async def fail() -> None:
    """Fail."""
    raise CodeError(7, "no")
