"""What an agent's process does once its base zygote is forked: the wiring of the node, and the loop."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from salver.engine.agent import CONTROLLER, Agent
from salver.engine.base import ProcessSpec
from salver.engine.hardware import detect
from salver.engine.instances import describe, socket_path
from salver.engine.midwife import Midwife, Place
from salver.engine.node import Node
from salver.engine.nursery import Nursery
from salver.engine.resources import Ledger
from salver.lib.tasks import Tasks, complain
from salver.processes.listening import NOBODY, open_listeners
from salver.schema.errors import SalverError
from salver.schema.messages import AgentFailed, AgentOptions, AgentReady
from salver.schema.process_payloads import ControllerPayload
from salver.transport.peer import Peer
from salver.transport.sockets import adopt, listen, unix_address

Base = tuple[int, socket.socket]


class AgentProcess:
    """An agent, its node and its connections."""

    def __init__(self, options: AgentOptions, driver_line: socket.socket) -> None:
        self._options = options
        self._driver_line = driver_line
        self._tasks = Tasks(on_error=complain)
        self._listeners = NOBODY
        self._agent = Agent(
            session_id=os.getsid(0),
            instance_dir=Path(options.instance_dir),
            ready=self._ready,
            tasks=self._tasks,
            attached=options.attached,
        )

    async def run(self, base: Base | None, lock_fd: int, warm: Sequence[str], controller_entry: str | None) -> None:
        """Manage the node until it ends.

        Args:
            base: Pid and line of the base zygote; None where forking is unsafe.
            warm: Modules that another base zygote would import.
        """
        failure = self._open_http() if self._options.proxy else None
        node = self._manage(base, lock_fd, warm)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, node.reap)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: self._tasks.start(self._agent.end(), name="end at a signal"))
        driver = await self._meet_driver()
        failure = failure or await self._start(controller_entry)
        if failure is not None:
            driver.tell(AgentFailed(failure))
            await self._agent.end()
        await self._agent.ended.wait()
        await self._agent.say_farewell()
        await self._tasks.close()

    async def fail(self, reason: str) -> None:
        """Tell the driver why there is nothing to run."""
        driver = await self._meet_driver()
        driver.tell(AgentFailed(reason))
        await self._agent.say_farewell()

    async def _meet_driver(self) -> Peer:
        driver = self._agent.accept()
        self._agent.meet_driver(driver)
        await adopt(self._driver_line, driver)
        if self._options.attached and hasattr(os, "pidfd_open"):
            # The line stays open when a process that the driver forked has inherited it; this tells all the same.
            pidfd = os.pidfd_open(os.getppid())
            asyncio.get_running_loop().add_reader(pidfd, self._driver_died, pidfd)
        return driver

    def _driver_died(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._agent.driver_is_gone()

    def _manage(self, base: Base | None, lock_fd: int, warm: Sequence[str]) -> Node:
        options = self._options
        place = Place(
            node_id=socket.gethostname() or "local",
            instance_dir=options.instance_dir,
            lock_fd=lock_fd,
            listeners={name: sock.fileno() for name, sock in self._listeners.sockets.items()},
        )
        ledger = Ledger(
            detect(num_cpus=options.num_cpus, num_gpus=options.num_gpus, resources=options.resources),
            strict_cpus=options.strict_cpus,
        )
        midwife = Midwife(place, self._agent, warm=warm, tasks=self._tasks)
        zygote = midwife.adopt_base(*base) if base is not None else None
        nursery = Nursery(midwife, zygote, self._agent, tasks=self._tasks)
        node = Node(place, ledger, nursery, self._agent, tasks=self._tasks)
        self._agent.manage(node, nursery)
        return node

    async def _start(self, controller_entry: str | None) -> str | None:
        """Listen and start the controller; return why that cannot be, if so."""
        address = unix_address(socket_path(self._options.instance_dir, "agent"))
        await listen(address, self._agent.accept)
        if controller_entry is None:
            self._agent.say_ready()
            return None
        payload = ControllerPayload(
            agent_address=address,
            http=self._options.http,
            proxy_listeners=self._listeners.of_proxies,
            expose_tracebacks=self._options.expose_tracebacks,
            strict_cpus=self._options.strict_cpus,
        )
        spec = ProcessSpec(name=CONTROLLER, entry=controller_entry, payload=msgspec.msgpack.encode(payload))
        try:
            await self._agent.start_controller(spec)
        except SalverError as error:
            return str(error)
        return None

    def _open_http(self) -> str | None:
        """Listen on the HTTP port, or return one line that says why that cannot be."""
        try:
            self._listeners = open_listeners(self._options.http)
        except SalverError as error:
            return str(error)
        return None

    def _ready(self) -> AgentReady:
        host, port = self._listeners.address or (None, None)
        url = None if host is None or port is None else self._options.http.url_at(host, port)
        describe(Path(self._options.instance_dir), os.getpid(), os.getppid(), url)
        address = unix_address(socket_path(self._options.instance_dir, CONTROLLER))
        return AgentReady(address, host, port, os.getpid())
