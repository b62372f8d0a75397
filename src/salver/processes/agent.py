"""The agent's process: `python -P -c "from salver.processes.agent import main; main()" FD OPTIONS`.

The order matters: the base zygote is forked first, while this process has one thread and no event loop.
"""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from salver.engine import instances
from salver.engine.agent import CONTROLLER, Agent
from salver.engine.base import ProcessSpec
from salver.engine.hardware import detect
from salver.engine.midwife import Midwife, Place
from salver.engine.node import Node
from salver.engine.nursery import FORKING_IS_SAFE_HERE, Nursery
from salver.engine.resources import Ledger
from salver.engine.zygote import Home, serve
from salver.lib.processes import become_subreaper, set_title, who_listens_on
from salver.lib.tasks import Tasks
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import AgentFailed, AgentOptions, AgentReady
from salver.schema.process_payloads import ControllerPayload
from salver.schema.settings import replace_environment
from salver.transport.peer import Peer
from salver.transport.sockets import adopt, listen, unix_address

CONTROLLER_ENTRY = "salver.processes.controller:main"
HTTP_LISTENER = "http"
BACKLOG = 4096
MAX_OPEN_FILES = 65536
# Imported by the base zygote while it has nothing else to do, in the order in which they are needed.
WARM = (
    "uvloop",
    "salver.processes.controller",
    "httptools",
    "salver.processes.proxy",
    "cloudpickle",
    "salver.processes.builder",
    "starlette.requests",
    "starlette.responses",
    "salver.processes.replica",
)


class _Base(NamedTuple):
    """The base zygote, as the agent knows it before its loop begins."""

    pid: int
    line: socket.socket


def main(*, controller_entry: str | None = CONTROLLER_ENTRY) -> None:
    """Run the agent; argv holds the descriptor of the driver's line and the options.

    Args:
        controller_entry: What to start as the controller; None starts none, and the agent is ready once it listens.
    """
    driver_line = socket.socket(fileno=int(sys.argv[1]))
    options = msgspec.msgpack.decode(bytes.fromhex(sys.argv[2]), type=AgentOptions)
    options = msgspec.structs.replace(options, instance_dir=os.path.abspath(options.instance_dir))
    _settle(driver_line)
    process = _AgentProcess(options, driver_line)
    try:
        Path(options.instance_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = instances.hold(Path(options.instance_dir))
    except (OSError, SalverError) as error:
        asyncio.run(process.fail(str(error)))
        return
    replace_environment({instances.MARK: options.instance_dir})
    base = _fork_base_zygote(driver_line, options.instance_dir) if FORKING_IS_SAFE_HERE else None
    asyncio.run(process.run(base, lock_fd, controller_entry))


def _settle(driver_line: socket.socket) -> None:
    """Become what an agent must be, whoever started it and how."""
    set_title("salver agent")
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver_line.set_inheritable(False)
    if os.getsid(0) != os.getpid():
        os.setsid()
    become_subreaper()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, MAX_OPEN_FILES)
    if now < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _fork_base_zygote(driver_line: socket.socket, instance_dir: str) -> _Base:
    """Fork; returns in the agent only, and runs whatever is forked from the zygote to its end."""
    agent_pid = os.getpid()
    ours, theirs = socket.socketpair()
    # What is imported now is shared for good; a garbage collector that looks at it would copy it.
    gc.freeze()
    pid = os.fork()
    if pid != 0:
        theirs.close()
        return _Base(pid, ours)
    ours.close()
    driver_line.close()
    serve(theirs, Home(agent_pid, instance_dir, janitor=True), WARM).run()
    sys.exit()


class _AgentProcess:
    def __init__(self, options: AgentOptions, driver_line: socket.socket) -> None:
        self._options = options
        self._driver_line = driver_line
        self._tasks = Tasks(on_error=_report)
        self._listeners: dict[str, socket.socket] = {}
        self._agent = Agent(
            session_id=os.getsid(0),
            instance_dir=Path(options.instance_dir),
            ready=self._ready,
            tasks=self._tasks,
            attached=options.attached,
        )

    async def run(self, base: _Base | None, lock_fd: int, controller_entry: str | None) -> None:
        """Manage the node until it ends."""
        failure = self._open_http() if self._options.proxy else None
        node = self._manage(base, lock_fd)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, node.reap)
        loop.add_signal_handler(signal.SIGTERM, lambda: self._tasks.start(self._agent.end(), name="end at SIGTERM"))
        driver = await self._meet_driver()
        failure = failure or await self._start(node, controller_entry)
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

    def _manage(self, base: _Base | None, lock_fd: int) -> Node:
        options = self._options
        place = Place(
            node_id=socket.gethostname() or "local",
            instance_dir=options.instance_dir,
            lock_fd=lock_fd,
            listeners={name: sock.fileno() for name, sock in self._listeners.items()},
        )
        ledger = Ledger(
            detect(num_cpus=options.num_cpus, num_gpus=options.num_gpus, resources=options.resources),
            strict_cpus=options.strict_cpus,
        )
        midwife = Midwife(place, self._agent, warm=WARM, tasks=self._tasks)
        zygote = midwife.adopt_base(base.pid, base.line) if base is not None else None
        nursery = Nursery(midwife, zygote, self._agent, tasks=self._tasks)
        node = Node(place, ledger, nursery, self._agent, tasks=self._tasks)
        self._agent.manage(node, nursery)
        return node

    async def _start(self, node: Node, controller_entry: str | None) -> str | None:
        """Listen and start the controller; return why that cannot be, if so."""
        address = unix_address(instances.socket_path(self._options.instance_dir, "agent"))
        await listen(address, self._agent.accept)
        if controller_entry is None:
            self._agent.say_ready()
            return None
        payload = ControllerPayload(
            agent_address=address,
            http=self._options.http,
            proxy_listeners=tuple(self._listeners),
            expose_tracebacks=self._options.expose_tracebacks,
            strict_cpus=self._options.strict_cpus,
        )
        spec = ProcessSpec(name=CONTROLLER, entry=controller_entry, payload=msgspec.msgpack.encode(payload))
        try:
            await node.start(spec)
        except SalverError as error:
            return str(error)
        return None

    def _open_http(self) -> str | None:
        """Listen on the HTTP port, or return one line that says why that cannot be."""
        http = self._options.http
        family = socket.AF_INET6 if http.host is not None and ":" in http.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((http.host, http.port))
            sock.listen(BACKLOG)
        except (OSError, UnicodeError) as error:
            sock.close()
            return _why_not(http, error)
        sock.setblocking(False)
        self._listeners[HTTP_LISTENER] = sock
        return None

    def _ready(self) -> AgentReady:
        http = self._listeners.get(HTTP_LISTENER)
        host, port = http.getsockname()[:2] if http is not None else (None, None)
        address = unix_address(instances.socket_path(self._options.instance_dir, CONTROLLER))
        return AgentReady(address, host, port, os.getpid())


def _why_not(http: HTTPOptions, error: OSError | UnicodeError) -> str:
    holder = who_listens_on(http.port) if getattr(error, "errno", None) == errno.EADDRINUSE else None
    if holder is not None:
        return f"Port {http.port} on {http.host} is in use by {holder}. Stop it, or choose another with --port."
    why = getattr(error, "strerror", None) or error
    return f"Cannot listen on {http.host}:{http.port}: {why}. Choose another address with --host or --port."


def _report(name: str, error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
