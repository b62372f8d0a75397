"""Performs commands against the engine and the replicas, and turns what happens into events."""

import contextlib
from collections.abc import Callable
from uuid import uuid4

from salver.controller.commands import (
    Command,
    DrainReplica,
    KillReplica,
    RetireReplica,
    SendRank,
    StartReplica,
    StopReplica,
    SuspectReplica,
)
from salver.controller.desired import Wish
from salver.controller.events import (
    DrainBegan,
    Event,
    KillSent,
    NoRoomForReplica,
    RankSent,
    ReconfigureFailed,
    ReplicaAwaitsRank,
    ReplicaDrained,
    ReplicaExited,
    ReplicaHeard,
    ReplicaLaunched,
    ReplicaPlaced,
    ReplicaReadied,
    ReplicaStartFailed,
    ReplicaSuspected,
    ReplicaUnhealthy,
    ResourcesFreed,
    StopBegan,
)
from salver.controller.health import silence_allowed_s
from salver.controller.launch import process_name, replica_process
from salver.engine.base import Engine, Exit, Living, ProcessSpec
from salver.lib.tasks import Tasks
from salver.schema.errors import ResourcesUnavailable, SalverError, StartFailed
from salver.schema.ids import ReplicaID
from salver.schema.messages import Done, Drain, Ranked, ReplicaFailed, ReplicaHealth, ReplicaJoined, ReplicaReady
from salver.schema.process_payloads import ReplicaNote
from salver.transport.peer import Peer, Refused

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
        self._unwanted: dict[str, bool] = {}
        """Processes that were signalled, and whether killed: some of them may only be on their way into the world."""
        self._exits = 0

    def perform(self, command: Command) -> None:
        """Begin a command; what it leads to arrives as events, the first one before this returns."""
        match command:
            case StartReplica():
                self._start(command.wish)
            case DrainReplica():
                self._begin_drain(command.replica)
            case RetireReplica():
                self._on_event(ReplicaUnhealthy(command.replica, command.reason))
                self._begin_drain(command.replica)
            case SuspectReplica():
                self._on_event(ReplicaSuspected(command.replica))
            case SendRank():
                self._on_event(RankSent(command.replica, command.rank, command.world_size))
                self._tasks.start(self._send_rank(command), name=f"rank of {command.replica}")
            case StopReplica():
                self._on_event(StopBegan(command.replica))
                self._signal(command.replica, kill=False)
            case KillReplica():
                self._on_event(KillSent(command.replica))
                self._signal(command.replica, kill=True)

    def adopt(self, process: Living, note: ReplicaNote) -> None:
        """Take over a replica of an earlier controller's time; how it is it says itself."""
        self._by_process[process.name] = note.replica
        self._on_event(
            ReplicaLaunched(
                note.replica,
                note.version,
                note.drain_timeout_s,
                note.silence_allowed_s,
                note.resources,
                adopted=True,
            )
        )
        self._on_event(ReplicaPlaced(note.replica, process.node_id, process.pid))

    def hear(self, message: ReplicaJoined | ReplicaReady | ReplicaHealth | ReplicaFailed, peer: Peer) -> None:
        """A replica tells of itself."""
        replica = message.replica
        if process_name(replica) not in self._by_process:
            return
        match message:
            case ReplicaJoined():
                self._peers[replica] = peer
                self._on_event(ReplicaAwaitsRank(replica, message.rank))
            case ReplicaReady():
                self._peers[replica] = peer
                self._on_event(ReplicaReadied(replica, message.address, message.rank))
                if message.draining:
                    self.perform(DrainReplica(replica))
            case ReplicaHealth():
                self._on_event(ReplicaHeard(replica, message.failures, message.reason, message.loop_held_s))
            case ReplicaFailed():
                self._on_event(ReplicaStartFailed(replica, message.traceback))
                self._signal(replica, kill=False)

    def process_exited(self, exit_: Exit) -> bool:
        """A process ended; say whether it was a replica's."""
        output = f"\n{exit_.last_output}" if exit_.last_output else ""
        return self._gone(exit_.name, f"{exit_}{output}")

    def _start(self, wish: Wish) -> None:
        replica = self._new_replica(wish)
        process = replica_process(
            wish,
            replica,
            controller_address=self._controller_address,
            expose_tracebacks=self._expose_tracebacks,
        )
        self._by_process[process.name] = replica
        options = wish.spec.options
        silence_s = silence_allowed_s(options.health_check_period_s, options.health_check_timeout_s)
        self._on_event(
            ReplicaLaunched(replica, wish.version, options.graceful_shutdown_timeout_s, silence_s, process.resources)
        )
        self._tasks.start(self._launch(process, replica), name=f"start {replica}")

    def _new_replica(self, wish: Wish) -> ReplicaID:
        while True:
            replica = ReplicaID(uuid4().hex[:8], wish.id)
            if process_name(replica) not in self._by_process:
                return replica

    async def _launch(self, process: ProcessSpec, replica: ReplicaID) -> None:
        exits = self._exits
        try:
            started = await self._engine.start(process)
        except ResourcesUnavailable as error:
            self._forget(process.name)
            self._on_event(NoRoomForReplica(replica, str(error)))
            if self._exits != exits:
                # What made room while the refusal was on its way was told before there was anybody to be told.
                self._on_event(ResourcesFreed())
        except StartFailed as error:
            self._on_event(ReplicaStartFailed(replica, str(error)))
            self._gone(process.name, str(error))
        else:
            self._on_event(ReplicaPlaced(replica, started.node_id, started.pid))
            if process.name in self._unwanted:
                await self._send_signal(process.name, kill=self._unwanted[process.name])

    def _gone(self, process: str, how: str) -> bool:
        self._exits += 1
        replica = self._forget(process)
        if replica is not None:
            self._on_event(ReplicaExited(replica, how))
            self._on_event(ResourcesFreed())
        return replica is not None

    def _forget(self, process: str) -> ReplicaID | None:
        self._unwanted.pop(process, None)
        replica = self._by_process.pop(process, None)
        if replica is not None:
            self._peers.pop(replica, None)
        return replica

    def _begin_drain(self, replica: ReplicaID) -> None:
        self._on_event(DrainBegan(replica))
        self._tasks.start(self._drain(replica), name=f"drain {replica}")

    async def _drain(self, replica: ReplicaID) -> None:
        peer = self._peers.get(replica)
        if peer is not None:
            # One that cannot answer is gone, or has nothing to finish.
            with contextlib.suppress(SalverError):
                await peer.ask(Drain(), Done)
        self._on_event(ReplicaDrained(replica))

    async def _send_rank(self, command: SendRank) -> None:
        peer = self._peers.get(command.replica)
        if peer is None:
            return
        try:
            await peer.ask(Ranked(command.rank, command.world_size), Done)
        except Refused as error:
            self._on_event(ReconfigureFailed(command.replica, error.message))
        except SalverError:
            return  # Its process has ended, which is told.

    def _signal(self, replica: ReplicaID, *, kill: bool) -> None:
        process = process_name(replica)
        if process in self._by_process:
            self._unwanted[process] = kill or self._unwanted.get(process, False)
            self._tasks.start(self._send_signal(process, kill=kill), name=f"signal {replica}")

    async def _send_signal(self, process: str, *, kill: bool) -> None:
        # Without an engine there is nobody to signal: its processes ended with it.
        with contextlib.suppress(SalverError):
            await self._engine.signal(process, kill=kill)
