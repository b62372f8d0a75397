"""The proxy of each node: started, and started again when it dies."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import count

import msgspec

from salver.controller.observed import restart_delay_s
from salver.engine.base import Engine, Exit, ProcessSpec
from salver.lib.clock import Clock
from salver.lib.tasks import Tasks
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import Done, Drain
from salver.schema.process_payloads import ProxyPayload
from salver.schema.status import ProxyStatus
from salver.transport.peer import Peer

PROXY_ENTRY = "salver.processes.proxy:main"

OnStatus = Callable[[str, ProxyStatus], None]


class Proxies:
    """Keeps a proxy alive for each listening socket.

    Args:
        listeners: Names of the listening sockets that proxies inherit; none means no proxy.
        on_status: Called with a node's id and what its proxy is doing.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        controller_address: str,
        http: HTTPOptions,
        listeners: tuple[str, ...],
        on_status: OnStatus,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._engine = engine
        self._payload = {
            name: ProxyPayload(controller_address=controller_address, http=http, listener=name) for name in listeners
        }
        self._on_status = on_status
        self._clock = clock
        self._tasks = tasks
        self._numbers = count(1)
        self._listener_of: dict[str, str] = {}
        self._node_of: dict[str, str] = {}
        self._peers: dict[str, Peer] = {}
        self._deaths = 0
        self._closing = False

    async def start(self) -> None:
        """Start a proxy for each listening socket."""
        for listener in self._payload:
            await self._start_one(listener)

    def ready(self, peer: Peer) -> None:
        """A proxy accepts connections."""
        self._deaths = 0
        self._peers[peer.other_name] = peer
        self._on_status(self._node_of.get(peer.other_name, ""), ProxyStatus.HEALTHY)

    def process_exited(self, exit_: Exit) -> None:
        """A process ended; a proxy is replaced, and connections wait in the backlog meanwhile."""
        listener = self._listener_of.pop(exit_.name, None)
        if listener is None:
            return
        self._peers.pop(exit_.name, None)
        node_id = self._node_of.pop(exit_.name, "")
        if not self._closing:
            self._deaths += 1
            self._on_status(node_id, ProxyStatus.UNHEALTHY)
            self._tasks.start(self._restart(listener), name="restart proxy")

    async def drain(self, patience_s: float) -> None:
        """Stop accepting, and return when every proxy has finished what it has, or the patience is over."""
        self._closing = True
        drains = [self._tasks.start(self._drain(name, peer), name=f"drain {name}") for name, peer in self._peers.items()]
        if drains:
            await asyncio.wait(drains, timeout=patience_s)

    async def _drain(self, name: str, peer: Peer) -> None:
        node_id = self._node_of.get(name, "")
        self._on_status(node_id, ProxyStatus.DRAINING)
        # A proxy that dies is drained, too.
        with contextlib.suppress(SalverError):
            await peer.ask(Drain(), Done)
        self._on_status(node_id, ProxyStatus.DRAINED)

    async def _restart(self, listener: str) -> None:
        await self._clock.sleep_until(self._clock.now() + restart_delay_s(self._deaths))
        if not self._closing:
            await self._start_one(listener)

    async def _start_one(self, listener: str) -> None:
        name = f"proxy-{next(self._numbers)}"
        self._listener_of[name] = listener
        started = await self._engine.start(
            ProcessSpec(
                name=name,
                entry=PROXY_ENTRY,
                payload=msgspec.msgpack.encode(self._payload[listener]),
                listeners=(listener,),
            )
        )
        self._node_of[name] = started.node_id
        if name in self._peers:
            self._on_status(started.node_id, ProxyStatus.HEALTHY)
        else:
            self._on_status(started.node_id, ProxyStatus.STARTING)
