"""The node agent: answers the controller's orders about processes, and ends everything when its driver is gone.

It does not know what a deployment is.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from salver.engine.base import Exit, ProcessSpec
from salver.engine.instances import remove_remains
from salver.engine.node import Node
from salver.engine.nursery import Nursery
from salver.lib.clock import Clock, MonotonicClock
from salver.lib.processes import child_pids, kill_until_gone
from salver.lib.restarts import QUICK_DEATH_S, restart_delay_s
from salver.lib.tasks import Tasks
from salver.schema.errors import ProtocolError, SalverError, StartFailed
from salver.schema.messages import (
    AgentReady,
    Done,
    GetNodes,
    GetProcesses,
    InstanceEnded,
    Message,
    Nodes,
    Notice,
    Output,
    ProcessExited,
    ProcessStarted,
    ReleasePreload,
    SignalProcess,
    StartProcess,
    StopInstance,
)
from salver.transport.peer import Peer

CONTROLLER = "controller"
TERM_GRACE_S = 2.0
KILL_GRACE_S = 1.0
FAREWELL_S = 0.5
MAX_CONTROLLER_DEATHS = 5
"""After so many quick deaths of the controller in a row the instance ends: it would not do better the next time."""


class Agent:
    """What the agent process does; the wiring is in `processes/agent.py`.

    Args:
        session_id: The session that all processes of the instance are in.
        instance_dir: Removed at the end.
        ready: Makes what the driver is told when the controller first speaks.
        tasks: Owns the answers and the end.
        attached: Whether the instance ends with its driver.
        clock: Time for the controller's restarts.
    """

    def __init__(
        self,
        *,
        session_id: int,
        instance_dir: Path,
        ready: Callable[[], AgentReady],
        tasks: Tasks,
        attached: bool,
        clock: Clock | None = None,
    ) -> None:
        self._session_id = session_id
        self._instance_dir = instance_dir
        self._ready = ready
        self._tasks = tasks
        self._attached = attached
        self._node: Node | None = None
        self._nursery: Nursery | None = None
        self._peers: set[Peer] = set()
        self._alone = asyncio.Event()
        self._driver: Peer | None = None
        self._clock = clock or MonotonicClock()
        self._controller: Peer | None = None
        self._controller_spec: ProcessSpec | None = None
        self._controller_since = 0.0
        self._controller_deaths = 0
        self._said_ready = False
        self._lines_left_out = 0
        self._ending = False
        self._farewells: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()

    def manage(self, node: Node, nursery: Nursery) -> None:
        """Start processes on this node from now on."""
        self._node = node
        self._nursery = nursery
        node.on_exit(self._process_exited)

    async def start_controller(self, spec: ProcessSpec) -> None:
        """Start the controller, and start it again when it dies.

        Raises:
            ResourcesUnavailable: See `Engine.start`.
            StartFailed: Likewise.
        """
        self._controller_spec = spec
        self._controller_since = self._clock.now()
        await self._managed()[0].start(spec)

    def accept(self) -> Peer:
        """Return a peer for whoever connects next."""
        peer = Peer(self, role="agent", name="agent", tasks=self._tasks)
        self._peers.add(peer)
        self._alone.clear()
        return peer

    def meet_driver(self, driver: Peer) -> None:
        """Report to this driver from now on."""
        self._driver = driver

    def say(self, text: str) -> None:
        """Show one line to the person at the terminal."""
        if self._driver is not None:
            self._driver.tell(Notice(text))

    def say_ready(self) -> None:
        """Tell the driver, once, that the instance can be reached."""
        if self._driver is not None and not self._said_ready:
            self._said_ready = True
            self._driver.tell(self._ready())

    def show(self, source: str, lines: tuple[str, ...]) -> None:
        """Show what a process wrote; a driver that reads too slowly misses lines, and is told so."""
        if self._driver is None:
            return
        if not self._driver.has_room:
            self._lines_left_out += len(lines)
            return
        if self._lines_left_out:
            self._driver.tell(Notice(f"{self._lines_left_out} lines of output were left out: they came too fast."))
            self._lines_left_out = 0
        self._driver.tell(Output(source, lines))

    async def end(self) -> None:
        """End every process of the instance and remove its directory."""
        if self._ending:
            await self.ended.wait()
            return
        self._ending = True
        if self._node is not None and self._nursery is not None:
            self._node.signal_all(kill=False)
            await self._node.wait_until_empty(TERM_GRACE_S)
            self._nursery.close()
            self._node.signal_all(kill=True)
            await self._node.wait_until_empty(KILL_GRACE_S)
        # Blocks the loop, which has nothing else to do now. Children that are left are zygotes, and what left the
        # session and lost its parent.
        kill_until_gone(child_pids, within_s=KILL_GRACE_S)
        remove_remains(self._instance_dir, self._session_id)
        self.ended.set()

    async def say_farewell(self) -> None:
        """Let the last answers leave, then close all connections."""
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=FAREWELL_S)
        for peer in list(self._peers):
            peer.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._alone.wait(), FAREWELL_S)

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Answer the controller or the driver; part of Office."""
        node, nursery = self._managed()
        match message:
            case StartProcess():
                if self._ending:
                    raise StartFailed(f"{message.name} was not started: the instance ends.")
                started = await node.start(_spec(message))
                return ProcessStarted(started.name, started.pid, started.node_id)
            case GetNodes() | GetProcesses():
                return self._report(peer, message, node)
            case SignalProcess():
                node.signal(message.name, kill=message.kill)
            case ReleasePreload():
                nursery.release(message.preload)
            case StopInstance():
                await self._stop()
            case _:
                raise ProtocolError(f"an agent does not answer {type(message).__name__}")
        return Done()

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Nobody tells an agent anything; part of Office."""
        raise ProtocolError(f"an agent does not listen to {type(message).__name__}")

    def on_gone(self, peer: Peer) -> None:
        """End with the driver of an attached run; part of Office."""
        self._peers.discard(peer)
        if not self._peers:
            self._alone.set()
        if peer is self._driver:
            self._driver = None
            self.driver_is_gone()
        elif peer is self._controller:
            self._controller = None

    def driver_is_gone(self) -> None:
        """End an attached run; a detached one goes on."""
        if self._attached and not self._ending:
            self._tasks.start(self.end(), name="end with the driver")

    async def _stop(self) -> None:
        answering = asyncio.current_task()
        assert answering is not None, "only a task answers"
        self._farewells.add(answering)
        await self.end()

    def _managed(self) -> tuple[Node, Nursery]:
        assert self._node is not None, "manage() comes before the first connection"
        assert self._nursery is not None, "manage() comes before the first connection"
        return self._node, self._nursery

    def _report(self, peer: Peer, question: GetNodes | GetProcesses, node: Node) -> Message:
        if peer.other is not None and peer.other.role == CONTROLLER:
            # It is told of exits from now on.
            self._controller = peer
        if isinstance(question, GetProcesses):
            return node.living()
        if self._controller is peer:
            self.say_ready()
        return Nodes((node.report(),))

    def _process_exited(self, exit_: Exit) -> None:
        # Exits that we ordered ourselves at the end are no news.
        if self._ending:
            return
        if self._controller is not None:
            self._controller.tell(ProcessExited(exit_.name, exit_.code, exit_.signal, exit_.last_output))
        if exit_.name == CONTROLLER:
            self._tasks.start(self._controller_died(exit_), name="controller died")

    async def _controller_died(self, exit_: Exit) -> None:
        if self._controller is not None:
            # Orders of its that were not read yet are nobody's wish any more.
            self._controller.close()
            self._controller = None
        self._managed()[0].give_up_starts()
        lived_long = self._clock.now() - self._controller_since >= QUICK_DEATH_S
        self._controller_deaths = 1 if lived_long else self._controller_deaths + 1
        reason = f"The {exit_}"
        if self._said_ready and self._controller_deaths < MAX_CONTROLLER_DEATHS and self._controller_spec is not None:
            self.say(f"{reason}, and is started again. Requests are served meanwhile.")
            await self._clock.sleep_until(self._clock.now() + restart_delay_s(self._controller_deaths))
            try:
                await self.start_controller(self._controller_spec)
            except SalverError as error:
                reason = str(error)
            else:
                return
        await self._end_without_controller(reason, exit_.last_output)

    async def _end_without_controller(self, reason: str, last_output: str) -> None:
        if self._driver is not None and not self._ending:
            detail = f"\n{last_output}" if last_output else ""
            self._driver.tell(InstanceEnded(f"{reason}; the run ends.{detail}"))
        await self.end()


def _spec(message: StartProcess) -> ProcessSpec:
    return ProcessSpec(
        name=message.name,
        entry=message.entry,
        payload=message.payload,
        preload=message.preload,
        resources=message.resources,
        env=message.env,
        listeners=message.listeners,
        note=message.note,
    )
