"""A whole control plane in memory: fake engine, fake replicas, builders and proxies, a clock that tests move."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self

import msgspec

from salver.controller.builds import BUILDER_ENTRY, Builds
from salver.controller.checkpoint import Checkpoint
from salver.controller.controller import Controller
from salver.controller.launch import REPLICA_ENTRY
from salver.controller.plane import wired
from salver.controller.proxies import PROXY_ENTRY, Proxies
from salver.engine.fake import FakeEngine, FakeProcess, MemoryStore
from salver.lib.clock import ManualClock
from salver.lib.tasks import Tasks
from salver.schema.application import ApplicationSpec, Preload
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID
from salver.schema.messages import (
    BuildAndDeploy,
    BuildError,
    Built,
    Done,
    Drain,
    Message,
    ProxyReady,
    Ranked,
    ReplicaFailed,
    ReplicaHealth,
    ReplicaJoined,
    ReplicaReady,
    Snapshot,
    Subscribe,
)
from salver.schema.process_payloads import BuilderPayload, ProxyPayload, ReplicaPayload
from salver.schema.status import ApplicationStatusOverview, DeploymentStatusOverview
from salver.schema.topics import Replicas, Status, TopicValue, replicas_topic
from salver.transport.memory import MemoryNetwork
from salver.transport.peer import Answer, Peer
from tests.waiting import wait_until

CONTROLLER = "memory:controller"
WITHIN_S = 5.0


class Caller:
    """A process that speaks with the controller: keeps what it is told, answers when it is asked.

    Attributes:
        values: The values of each topic, in order.
        drained: Set once it was asked to drain.
        hangs: It never finishes draining.
        ranks: What it was told of its rank, in order.
        fails_to_reconfigure: What its `reconfigure` raises at a change of its rank; "" for one that does not.
    """

    def __init__(self, *, role: str, name: str, tasks: Tasks) -> None:
        self.peer = Peer(self, role=role, name=name, tasks=tasks)
        self.values: dict[str, list[Any]] = {}
        self.drained = asyncio.Event()
        self.hangs = False
        self.ranks: list[Ranked] = []
        self.fails_to_reconfigure = ""

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        if isinstance(message, Ranked):
            self.ranks.append(message)
            if self.fails_to_reconfigure and len(self.ranks) > 1:
                raise SalverError(self.fails_to_reconfigure)
            return Done()
        assert isinstance(message, Drain)
        self.drained.set()
        if self.hangs:
            await asyncio.Event().wait()
        return Done()

    def on_tell(self, peer: Peer, message: Message) -> None:
        assert isinstance(message, Snapshot)
        self.values.setdefault(message.topic, []).append(message.value)

    def on_gone(self, peer: Peer) -> None:
        pass


class Plane:
    """A controller with everything around it.

    Attributes:
        broken: Versions whose constructors raise, and what.
        mute: Versions whose replicas never become ready.
        stubborn: Versions whose replicas never finish draining.
        builds: What builders do next: report an application or an error, or None to hang.
        launches: How often each deployment's replicas were launched.
        replicas: The living replicas, by process name.
    """

    def __init__(
        self, nodes: dict[str, dict[str, float]] | None = None, *, strict_cpus: bool = False, num_proxies: int = 1
    ) -> None:
        self.broken: dict[str, str] = {}
        self.mute: set[str] = set()
        self.stubborn: set[str] = set()
        self.builds: deque[ApplicationSpec | str | None] = deque()
        self.launches: Counter[str] = Counter()
        self.replicas: dict[str, Caller] = {}
        self.proxies: dict[str, Caller] = {}
        self.errors: list[tuple[str, BaseException]] = []
        self.clock = ManualClock(100.0)
        self.network = MemoryNetwork()
        self.store = MemoryStore()
        programs = {REPLICA_ENTRY: self._replica, BUILDER_ENTRY: self._builder, PROXY_ENTRY: self._proxy}
        self.engine = FakeEngine(nodes, programs=programs, strict_cpus=strict_cpus, listeners={"http": None})  # type: ignore[dict-item]
        self.tasks = Tasks(on_error=lambda name, error: self.errors.append((name, error)))
        self.plane = wired(
            self.engine, controller_address=CONTROLLER, expose_tracebacks=False, clock=self.clock, tasks=self.tasks
        )
        self.controller = Controller(self.engine, self.plane, Checkpoint(self.store), strict_cpus=strict_cpus)
        self.proxy_starter = Proxies(
            self.engine,
            [ProxyPayload(controller_address=CONTROLLER, http=HTTPOptions(), listener="http")] * num_proxies,
            on_status=self.plane.publisher.proxy_changed,
            clock=self.clock,
            tasks=self.tasks,
        )
        on_failure = self.controller.build_failed
        builds = Builds(self.engine, controller_address=CONTROLLER, on_failure=on_failure, tasks=self.tasks)
        self.controller.attend(builds, self.proxy_starter)
        self.driver: Caller

    async def __aenter__(self) -> Self:
        await self.network.listen(
            CONTROLLER, lambda: Peer(self.controller, role="controller", name="controller", tasks=self.tasks)
        )
        self.tasks.start(self.plane.loop.run(), name="control loop")
        self.driver = await self.join("driver", "driver")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        await self.tasks.close()
        assert self.errors == []

    async def join(self, role: str, name: str) -> Caller:
        """Connect a process to the controller."""
        caller = Caller(role=role, name=name, tasks=self.tasks)
        await self.network.dial(CONTROLLER, caller.peer)
        return caller

    # What a driver does

    async def ask(self, message: Message, answer: type[Answer] = Done) -> Answer:  # type: ignore[assignment]
        """Ask the controller."""
        return await self.driver.peer.ask(message, answer)

    def start_asking(self, message: Message) -> "asyncio.Task[Done]":
        """Ask the controller without waiting for the answer."""
        return self.tasks.start(self.ask(message), name="ask")

    def tell_health(self, process: str, failures: int, reason: str = "ValueError: ill") -> None:
        """Let a replica tell what came of its health check."""
        payload = msgspec.msgpack.decode(self.engine.running[process].spec.payload, type=ReplicaPayload)
        self.replicas[process].peer.tell(
            ReplicaHealth(replica=payload.replica, failures=failures, reason=reason if failures else "")
        )

    def watch(self, topic: str) -> list[Any]:
        """Subscribe to a topic; return the list that its values come to."""
        self.driver.peer.tell(Subscribe(topic))
        return self.driver.values.setdefault(topic, [])

    def watch_replicas(self, name: str = "Model", app: str = "shop") -> list[Replicas]:
        """Subscribe to who serves a deployment."""
        return self.watch(replicas_topic(DeploymentID(name, app)))

    # What is

    def application(self, name: str = "shop") -> ApplicationStatusOverview | None:
        """Return an application's status."""
        return self.plane.publisher.status().applications.get(name)

    def status(self, name: str = "shop") -> str:
        """Return an application's status in a word; "" for an unknown one."""
        application = self.application(name)
        return "" if application is None else application.status.value

    def deployment(self, name: str = "Model", app: str = "shop") -> DeploymentStatusOverview:
        """Return a deployment's status."""
        application = self.application(app)
        assert application is not None
        return application.deployments[name]

    def running(self, prefix: str = "") -> list[str]:
        """Return the names of the living processes that begin so."""
        return sorted(name for name in self.engine.running if name.startswith(prefix))

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until something is so."""
        await wait_until(condition, within_s=WITHIN_S, what=what)

    async def until_status(self, status: str, name: str = "shop") -> None:
        """Wait for an application's status."""
        await self.until(lambda: self.status(name) == status, f"{name} {status or 'gone'}")

    async def pass_time(self, seconds: float) -> None:
        """Let what is under way come to rest, then move the clock."""
        await rest()
        self.clock.advance(seconds)
        await rest()

    # What processes do

    async def _replica(self, process: FakeProcess) -> int:
        payload = msgspec.msgpack.decode(process.spec.payload, type=ReplicaPayload)
        version = payload.code_version
        self.launches[payload.replica.deployment_id.name] += 1
        caller = await self.join("replica", process.spec.name)
        caller.hangs = version in self.stubborn
        self.replicas[process.spec.name] = caller
        caller.peer.tell(ReplicaJoined(payload.replica))
        if version in self.broken:
            caller.peer.tell(ReplicaFailed(payload.replica, self.broken[version]))
        elif version not in self.mute:
            caller.peer.tell(ReplicaReady(payload.replica, f"memory:{process.spec.name}"))
        await process.wait_for_stop()
        caller.peer.close()
        return 0

    async def _builder(self, process: FakeProcess) -> int:
        payload = msgspec.msgpack.decode(process.spec.payload, type=BuilderPayload)
        result = self.builds.popleft()
        if result is None:
            await process.wait_for_stop()
            return 1
        caller = await self.join("builder", process.spec.name)
        report = BuildError(payload.name, result) if isinstance(result, str) else Built(payload.name, result)
        await caller.peer.ask(report, Done)
        return 0

    async def _proxy(self, process: FakeProcess) -> int:
        caller = await self.join("proxy", process.spec.name)
        self.proxies[process.spec.name] = caller
        caller.peer.tell(ProxyReady())
        await process.wait_for_stop()
        return 0


def order(import_path: str = "shop:app", name: str = "shop", route_prefix: str | None = "/") -> BuildAndDeploy:
    """Return an order to build."""
    preload = Preload("/code", modules=("shop",))
    return BuildAndDeploy(import_path=import_path, arguments={}, name=name, route_prefix=route_prefix, preload=preload)


def statuses(values: list[TopicValue], name: str = "shop") -> list[str]:
    """Return what an application's status was, each change once; "" while it is unknown."""
    seen: list[str] = []
    for each in values:
        assert isinstance(each, Status)
        application = each.status.applications.get(name)
        status = "" if application is None else application.status.value
        if not seen or seen[-1] != status:
            seen.append(status)
    return seen


async def rest() -> None:
    """Return when nothing that is under way in memory can still move."""
    for _ in range(200):
        await asyncio.sleep(0)
