"""The local engine: a client of the agent on this machine."""

import asyncio

from salver.engine.base import Engine, Exit, Living, OnExit, ProcessSpec, Started
from salver.lib.tasks import Tasks
from salver.schema.application import Preload
from salver.schema.errors import Disconnected, ProtocolError, ResourcesUnavailable, StartFailed
from salver.schema.messages import (
    Done,
    GetNodes,
    GetProcesses,
    Message,
    NodeReport,
    Nodes,
    Processes,
    ProcessExited,
    ProcessStarted,
    ReleasePreload,
    SignalProcess,
    StartProcess,
)
from salver.transport.peer import Peer, Refused
from salver.transport.sockets import dial

_REFUSALS = {each.__name__: each for each in (ResourcesUnavailable, StartFailed)}


class LocalEngine(Engine):
    """Processes on this machine, started by its agent."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._on_exit: list[OnExit] = []

    @classmethod
    async def connect(cls, agent_address: str, *, tasks: Tasks) -> "LocalEngine":
        """Return an engine that speaks with the agent at an address.

        Raises:
            Disconnected: No agent listens there.
        """
        engine = cls()
        engine._peer = Peer(engine, role="controller", name="controller", tasks=tasks)
        await dial(agent_address, engine._peer)
        return engine

    async def start(self, spec: ProcessSpec) -> Started:
        """Start a process."""
        order = StartProcess(
            name=spec.name,
            entry=spec.entry,
            payload=spec.payload,
            preload=spec.preload,
            resources=dict(spec.resources),
            env=dict(spec.env),
            listeners=spec.listeners,
            note=spec.note,
        )
        try:
            started = await self._agent.ask(order, ProcessStarted)
        except Refused as refused:
            raise _REFUSALS.get(refused.kind, StartFailed)(refused.message) from None
        except Disconnected as error:
            raise StartFailed(f"{spec.name}: {error}") from error
        return Started(started.name, started.pid, started.node_id)

    async def signal(self, name: str, *, kill: bool = False) -> None:
        """Stop or kill a process."""
        await self._agent.ask(SignalProcess(name, kill), Done)

    async def processes(self) -> list[Living]:
        """Return the processes of this machine's agent that live."""
        answer = await self._agent.ask(GetProcesses(), Processes)
        return [Living(each.name, each.pid, answer.node_id, each.note) for each in answer.processes]

    async def nodes(self) -> list[NodeReport]:
        """Return this machine."""
        return list((await self._agent.ask(GetNodes(), Nodes)).nodes)

    async def release(self, preload: Preload) -> None:
        """Let the zygote of a preload go."""
        await self._agent.ask(ReleasePreload(preload), Done)

    def on_exit(self, callback: OnExit) -> None:
        """Call back for each process that ends."""
        self._on_exit.append(callback)

    async def close(self) -> None:
        """Close the connection to the agent."""
        self._agent.close()

    @property
    def _agent(self) -> Peer:
        assert self._peer is not None, "made by connect()"
        return self._peer

    def _tell(self, exit_: Exit) -> None:
        for callback in self._on_exit:
            callback(exit_)

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Nobody asks an engine; part of Office."""
        raise ProtocolError(f"an engine does not answer {type(message).__name__}")

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Hear of exits; part of Office."""
        if isinstance(message, ProcessExited):
            exit_ = Exit(message.name, message.exit_code, message.signal, message.last_output)
            # What arrived with it comes first: the answer to the start, whose caller is only woken up yet.
            asyncio.get_running_loop().call_soon(self._tell, exit_)

    def on_gone(self, peer: Peer) -> None:
        """The agent is gone, and this process with it, soon; part of Office."""
