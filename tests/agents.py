"""Real agents for tests: started as a driver starts them, but without a controller. The test is the controller."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from salver.engine import instances
from salver.engine.local import LocalEngine
from salver.lib.tasks import Tasks
from salver.schema.http import HTTPOptions
from salver.schema.messages import AgentFailed, AgentOptions, AgentReady, Message
from salver.transport.first_word import send_first_word
from salver.transport.peer import Peer
from salver.transport.sockets import adopt, unix_address

ROOT = Path(__file__).parent.parent
READY_WITHIN_S = 20.0


@contextmanager
def short_dir() -> Iterator[Path]:
    """Yield an empty directory whose path leaves room for the names of Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="salver-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Agent:
    """A running agent, and its driver's side of the line.

    Attributes:
        heard: All that the agent has told its driver.
        gone: Set when the line is closed.
        first: What it said when it could be reached.
    """

    def __init__(self, runtime_dir: Path, *, controller_entry: str | None = None, **options: Any) -> None:
        self.path, self._lock_fd = instances.create(runtime_dir)
        self.heard: list[Message] = []
        self.gone = asyncio.Event()
        self.tasks = Tasks(on_error=_fail)
        self.line = Peer(self, role="driver", name="driver", tasks=self.tasks)
        self.first: AgentReady
        self._first: asyncio.Future[AgentReady] = asyncio.get_running_loop().create_future()
        self._sock, theirs = socket.socketpair()
        code = f"from salver.processes.agent import main; main(controller_entry={controller_entry!r})"
        send_first_word(self._sock, self._encoded(options))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            )

    async def ready(self) -> AgentReady:
        """Wait until it can be reached.

        Raises:
            AssertionError: It failed; the message is its reason.
        """
        self._connection = await adopt(self._sock, self.line)
        self.first = await asyncio.wait_for(self._first, READY_WITHIN_S)
        os.close(self._lock_fd)
        return self.first

    async def engine(self) -> LocalEngine:
        """Return an engine that speaks with it."""
        address = unix_address(instances.socket_path(str(self.path), "agent"))
        engine = await LocalEngine.connect(address, tasks=self.tasks)
        await engine.nodes()
        return engine

    def stall(self) -> None:
        """Read nothing that it sends to its driver."""
        assert self._connection._transport is not None
        self._connection._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        assert self._connection._transport is not None
        self._connection._transport.resume_reading()

    def end(self) -> None:
        """Kill what is left of it."""
        instances.remove_remains(self.path, self.process.pid)
        self.process.wait()

    def _encoded(self, options: dict[str, Any]) -> bytes:
        usual: dict[str, Any] = {
            "instance_dir": str(self.path),
            "http": HTTPOptions(port=0),
            "proxy": True,
            "num_cpus": None,
            "num_gpus": None,
            "resources": {},
            "strict_cpus": False,
            "attached": True,
            "expose_tracebacks": True,
        }
        return msgspec.msgpack.encode(AgentOptions(**{**usual, **options}))

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        raise AssertionError(f"an agent asks nothing of its driver: {message}")

    def on_tell(self, peer: Peer, message: Message) -> None:
        self.heard.append(message)
        if isinstance(message, AgentReady):
            self._first.set_result(message)
        elif isinstance(message, AgentFailed):
            self._first.set_exception(AssertionError(message.reason))

    def on_gone(self, peer: Peer) -> None:
        self.gone.set()
        if not self._first.done():
            self._first.set_exception(AssertionError("the agent ended before it was ready"))


@asynccontextmanager
async def running_agent(runtime_dir: Path, **options: Any) -> AsyncIterator[Agent]:
    """Yield an agent that is ready; afterwards nothing of it is left.

    Args:
        options: Fields of `AgentOptions` that are not as usual.
    """
    agent = Agent(runtime_dir, **options)
    try:
        await agent.ready()
        yield agent
    finally:
        agent.line.close()
        await asyncio.to_thread(agent.end)
        await agent.tasks.close()


def _fail(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name} failed") from error
