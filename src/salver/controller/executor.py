"""Performs commands against the engine and the replicas, and turns what happens into events."""

from collections.abc import Callable
from uuid import uuid4

from salver.controller.commands import Command, DrainReplica, KillReplica, StartReplica, StopReplica
from salver.controller.desired import Wish
from salver.controller.events import (
    DrainBegan,
    Event,
    KillSent,
    NoRoomForReplica,
    ReplicaDrained,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaPlaced,
    ReplicaReadied,
    ReplicaStartFailed,
    ResourcesFreed,
    StopBegan,
)
from salver.controller.launch import process_name, replica_process
from salver.engine.base import Engine, Exit
from salver.lib.tasks import Tasks
from salver.schema.errors import Disconnected, ResourcesUnavailable, SalverError, StartFailed
from salver.schema.ids import ReplicaID
from salver.schema.messages import Done, Drain, ReplicaFailed, ReplicaReady
from salver.transport.peer import Peer

OnEvent = Callable[[Event], None]


class Executor:
    """Acts on the world.

    Args:
        controller_address: Where replicas report.
        on_event: Hears what happens.
        tasks: Owns the work that takes time.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        controller_address: str,
        expose_tracebacks: bool,
        on_event: OnEvent,
        tasks: Tasks,
    ) -> None:
        self._engine = engine
        self._controller_address = controller_address
        self._expose_tracebacks = expose_tracebacks
        self._on_event = on_event
        self._tasks = tasks
        self._by_process: dict[str, ReplicaID] = {}
        self._peers: dict[ReplicaID, Peer] = {}
        self._failed: set[ReplicaID] = set()

    def perform(self, command: Command) -> None:
        """Begin a command; what it leads to arrives as events, the first one before this returns."""
        match command:
            case StartReplica():
                self._start(command.wish)
            case DrainReplica():
                self._on_event(DrainBegan(command.replica))
                self._tasks.start(self._drain(command.replica), name=f"drain {command.replica}")
            case StopReplica():
                self._on_event(StopBegan(command.replica))
                self._signal(command.replica, kill=False)
            case KillReplica():
                self._on_event(KillSent(command.replica))
                self._signal(command.replica, kill=True)

    def replica_ready(self, message: ReplicaReady, peer: Peer) -> None:
        """A replica reports ready."""
        self._peers[message.replica] = peer
        self._on_event(ReplicaReadied(message.replica, message.address))

    def replica_failed(self, message: ReplicaFailed) -> None:
        """A replica's user code raised while it was constructed."""
        self._on_event(ReplicaStartFailed(message.replica, message.traceback))
        self._signal(message.replica, kill=False)

    def process_exited(self, exit_: Exit) -> bool:
        """A process ended; say whether it was a replica's."""
        replica = self._by_process.pop(exit_.name, None)
        if replica is None:
            return False
        self._peers.pop(replica, None)
        output = f"\n{exit_.last_output}" if exit_.last_output else ""
        self._on_event(ReplicaExited(replica, f"{exit_}{output}"))
        self._on_event(ResourcesFreed())
        return True

    def _start(self, wish: Wish) -> None:
        replica = ReplicaID(uuid4().hex[:8], wish.id)
        self._by_process[process_name(replica)] = replica
        self._on_event(ReplicaLaunched(replica, wish.version, wish.spec.options.graceful_shutdown_timeout_s))
        self._tasks.start(self._launch(wish, replica), name=f"start {replica}")

    async def _launch(self, wish: Wish, replica: ReplicaID) -> None:
        process = replica_process(
            wish,
            replica,
            controller_address=self._controller_address,
            expose_tracebacks=self._expose_tracebacks,
        )
        try:
            started = await self._engine.start(process)
        except ResourcesUnavailable as error:
            self._by_process.pop(process.name, None)
            self._on_event(NoRoomForReplica(replica, str(error)))
        except StartFailed as error:
            self._by_process.pop(process.name, None)
            self._on_event(ReplicaStartFailed(replica, str(error)))
            self._on_event(ReplicaExited(replica, str(error)))
        else:
            self._on_event(ReplicaPlaced(replica, started.node_id, started.pid))

    async def _drain(self, replica: ReplicaID) -> None:
        peer = self._peers.get(replica)
        if peer is not None:
            try:
                await peer.ask(Drain(), Done)
            except Disconnected:
                pass  # Gone already: its exit is the next event.
        self._on_event(ReplicaDrained(replica))

    def _signal(self, replica: ReplicaID, *, kill: bool) -> None:
        self._tasks.start(self._send_signal(replica, kill=kill), name=f"signal {replica}")

    async def _send_signal(self, replica: ReplicaID, *, kill: bool) -> None:
        try:
            await self._engine.signal(process_name(replica), kill=kill)
        except SalverError:
            return  # The engine is gone, and its processes with it.
