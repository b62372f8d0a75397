"""The proxies of a node: started, and started again when they die or leave."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count

import msgspec

from salver.controller.launch import number_in
from salver.engine.base import Engine, Exit, Living, ProcessSpec
from salver.lib.clock import Clock
from salver.lib.restarts import QUICK_DEATH_S, restart_delay_s
from salver.lib.tasks import Tasks
from salver.schema.errors import SalverError
from salver.schema.messages import Done, Drain
from salver.schema.process_payloads import ProxyNote, ProxyPayload
from salver.schema.status import ProxyStatus
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.peer import Peer

PROXY_ENTRY = "salver.processes.proxy:main"

OnStatus = Callable[[str, ProxyStatus], None]

logger = logging.getLogger(LOGGER_NAME)


@dataclass
class _Proxy:
    """A proxy's process.

    Attributes:
        slot: Which of the payloads is its own.
        deaths: How many before it died young, in a row.
        node_id: Where it runs; "" until that is known.
        ready_at: When it accepted connections first, or None.
    """

    slot: int
    deaths: int
    node_id: str = ""
    peer: Peer | None = None
    ready_at: float | None = None


class Proxies:
    """Keeps proxies alive.

    Args:
        payloads: What each proxy is told.
        on_status: Called with a node's id and what its proxy is doing; with several, "#1" and so on is appended.
        clock: Time for restarts.
        tasks: Owns the restarts.
    """

    def __init__(
        self, engine: Engine, payloads: Iterable[ProxyPayload], *, on_status: OnStatus, clock: Clock, tasks: Tasks
    ) -> None:
        self._engine = engine
        self._payloads = list(payloads)
        self._on_status = on_status
        self._clock = clock
        self._tasks = tasks
        self._numbers = count(1)
        self._proxies: dict[str, _Proxy] = {}
        self._leaving: dict[str, _Proxy] = {}
        """Those that end by themselves, and whose places are taken already."""
        self._closing = False

    def adopt(self, living: Mapping[str, Living], notes: Mapping[str, ProxyNote]) -> None:
        """Keep the proxies that an earlier controller started, by process name; `start` starts the others."""
        for name in sorted(notes, key=number_in, reverse=True):
            # Where two have the same slot, the elder one leaves, and finishes what it has.
            taken = any(each.slot == notes[name].slot for each in self._proxies.values())
            proxy = _Proxy(notes[name].slot, 0, living[name].node_id)
            (self._leaving if taken else self._proxies)[name] = proxy
        self._numbers = count(1 + max((number_in(each) for each in notes), default=0))

    async def start(self) -> None:
        """Start all proxies that are not there."""
        for slot in sorted(set(range(len(self._payloads))) - {each.slot for each in self._proxies.values()}):
            await self._start_one(slot, deaths=0)

    def ready(self, peer: Peer) -> None:
        """A proxy accepts connections."""
        proxy = self._proxies.get(peer.other_name)
        if proxy is not None:
            proxy.peer, proxy.ready_at = peer, self._clock.now()
            self._show(proxy)

    def leaving(self, peer: Peer) -> None:
        """A proxy was told to end, by whomever; another takes its place while it finishes what it has."""
        proxy = self._proxies.pop(peer.other_name, None)
        if proxy is not None:
            self._leaving[peer.other_name] = proxy
            if not self._closing:
                logger.info("%s was told to end, and is replaced.", peer.other_name)
                self._tasks.start(self._start_one(proxy.slot, deaths=0), name="replace proxy")

    def process_exited(self, exit_: Exit) -> None:
        """A process ended; a proxy is replaced, and connections wait in the backlog meanwhile."""
        self._leaving.pop(exit_.name, None)
        proxy = self._proxies.pop(exit_.name, None)
        if proxy is not None and not self._closing:
            logger.error("The %s, and is replaced.\n%s", exit_, exit_.last_output)
            self._died(proxy)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, and return when every proxy has finished what it has, or the time is over."""
        self._closing = True
        proxies = [*self._proxies.values(), *self._leaving.values()]
        drains = [self._tasks.start(self._drain(each), name="drain proxy") for each in proxies]
        if not drains:
            return
        over = self._tasks.start(self._clock.sleep_until(self._clock.now() + timeout_s), name="end of drain")
        all_drained = self._tasks.start(_all(drains), name="proxies drained")
        await asyncio.wait([all_drained, over], return_when=asyncio.FIRST_COMPLETED)
        for each in (*drains, all_drained, over):
            each.cancel()

    async def _drain(self, proxy: _Proxy) -> None:
        if proxy.peer is None:
            return
        self._on_status(self._shown_as(proxy), ProxyStatus.DRAINING)
        # One that dies is drained too.
        with contextlib.suppress(SalverError):
            await proxy.peer.ask(Drain(), Done)
        self._on_status(self._shown_as(proxy), ProxyStatus.DRAINED)

    async def _start_one(self, slot: int, *, deaths: int) -> None:
        payload = self._payloads[slot]
        name = f"proxy-{next(self._numbers)}"
        proxy = self._proxies[name] = _Proxy(slot, deaths)
        spec = ProcessSpec(
            name=name,
            entry=PROXY_ENTRY,
            payload=msgspec.msgpack.encode(payload),
            listeners=(payload.listener,),
            note=msgspec.msgpack.encode(ProxyNote(slot)),
        )
        try:
            started = await self._engine.start(spec)
        except SalverError as error:
            del self._proxies[name]
            logger.error("A proxy could not be started, and is tried again: %s", error)
            self._died(proxy)
        else:
            if name in self._proxies:  # else it is dead already
                proxy.node_id = started.node_id
                self._show(proxy)

    def _died(self, proxy: _Proxy) -> None:
        lived_long = proxy.ready_at is not None and self._clock.now() - proxy.ready_at >= QUICK_DEATH_S
        deaths = 0 if lived_long else proxy.deaths + 1
        if proxy.node_id:
            self._on_status(self._shown_as(proxy), ProxyStatus.UNHEALTHY)
        self._tasks.start(self._restart(proxy.slot, deaths), name="restart proxy")

    async def _restart(self, slot: int, deaths: int) -> None:
        await self._clock.sleep_until(self._clock.now() + restart_delay_s(deaths))
        if not self._closing:
            await self._start_one(slot, deaths=deaths)

    def _show(self, proxy: _Proxy) -> None:
        if proxy.node_id:
            status = ProxyStatus.HEALTHY if proxy.peer is not None else ProxyStatus.STARTING
            self._on_status(self._shown_as(proxy), status)

    def _shown_as(self, proxy: _Proxy) -> str:
        return proxy.node_id if len(self._payloads) == 1 else f"{proxy.node_id}#{proxy.slot + 1}"


async def _all(tasks: "list[asyncio.Task[None]]") -> None:
    await asyncio.wait(tasks)
