"""The engine's contract: start, signal and outlive processes; count resources; keep a few small values.

`tests/contract/test_engine.py` holds every engine to the promises in these docstrings.
"""

import asyncio
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import msgspec

from salver.engine.instances import socket_path
from salver.schema.application import Preload
from salver.schema.messages import NodeReport
from salver.transport.framing import FrameSink
from salver.transport.sockets import Dial, Listener, dial, listen, unix_address

CPU = "CPU"
GPU = "GPU"
MEMORY = "memory"


class ProcessSpec(msgspec.Struct, frozen=True):
    """A process to start.

    Attributes:
        name: Unique among the engine's living processes; shown in `ps` and before its output.
        entry: "module:function", called as `function(payload, context)`; returning ends the process with code 0.
        payload: Bytes for the entry, in whatever encoding it expects.
        preload: User code that must be in memory first; None for Salver's own processes.
        resources: What the process needs, by name: CPU, GPU, memory (bytes) and custom ones.
        env: Environment variables on top of the engine's own.
        listeners: Names of the node's listening sockets that the process inherits.
        note: Kept while the process lives, for whoever takes over from the one who started it.
    """

    name: str
    entry: str
    payload: bytes = b""
    preload: Preload | None = None
    resources: Mapping[str, float] = {}
    env: Mapping[str, str] = {}
    listeners: tuple[str, ...] = ()
    note: bytes = b""


class ProcessContext(msgspec.Struct, frozen=True):
    """What a started process learns of its place.

    Attributes:
        name: The spec's name.
        node_id: The node it runs on.
        instance_dir: Directory for its sockets; its owner's alone.
        parent_pid: The process that reaps it.
        listeners: Inherited listening sockets by name.
    """

    name: str
    node_id: str
    instance_dir: str
    parent_pid: int
    listeners: Mapping[str, socket.socket]

    @property
    def socket_path(self) -> str:
        """Return where this process listens for others."""
        return socket_path(self.instance_dir, self.name)

    @property
    def address(self) -> str:
        """Return the address that others dial to reach this process."""
        return unix_address(self.socket_path)

    @property
    def dial(self) -> Dial:
        """Return what opens connections to other processes of the instance."""
        return dial

    async def listen(self, accept: Callable[[], FrameSink]) -> Listener:
        """Listen for others at the address; `accept` makes the sink of each connection."""
        return await listen(self.address, accept)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call back in the running event loop when the process is asked to stop, in place of its end."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, callback)

    def failed(self, error: BaseException) -> None:
        """Take note of what user code raised while it started; only where others can see this process's objects."""


class Exit(msgspec.Struct, frozen=True):
    """How a process ended.

    Attributes:
        code: Exit code, or None when a signal ended it.
        signal: Signal number, or None.
        last_output: Its last lines, for a message that explains.
    """

    name: str
    code: int | None
    signal: int | None
    last_output: str = ""

    def __str__(self) -> str:
        return f"{self.name} {how_it_ended(self.code, self.signal)}"


class Started(msgspec.Struct, frozen=True):
    """A process that runs."""

    name: str
    pid: int
    node_id: str


class Living(msgspec.Struct, frozen=True):
    """A process that lives, and the note that it was started with."""

    name: str
    pid: int
    node_id: str
    note: bytes


OnExit = Callable[[Exit], None]


class Engine(ABC):
    """Starts processes on nodes and says when they end."""

    grows: bool = False
    """Whether nodes may be added later, so that waiting for impossible resources can make sense."""

    @abstractmethod
    async def start(self, spec: ProcessSpec) -> Started:
        """Start a process and return once it runs; that takes as long as importing its preload does.

        `signal` with the process's name gives up a start that is under way.

        Raises:
            ResourcesUnavailable: No node has the resources free; nothing was started and nothing stays reserved.
            StartFailed: The preload failed (the message holds the user's traceback), the start was given up, or the
                system refused.
        """

    @abstractmethod
    async def signal(self, name: str, *, kill: bool = False) -> None:
        """Send SIGTERM, or with `kill` end the process and everything it started. Unknown names are no error."""

    @abstractmethod
    async def processes(self) -> list[Living]:
        """Return the processes that live, whoever started them; their exits are told to whoever asked this."""

    @abstractmethod
    async def nodes(self) -> list[NodeReport]:
        """Return the nodes with their total and free resources."""

    @abstractmethod
    async def release(self, preload: Preload) -> None:
        """Forget what was kept warm for a preload; unknown ones are no error."""

    @abstractmethod
    def on_exit(self, callback: OnExit) -> None:
        """Call `callback` once for each process that ends, after its start returned and its resources are free."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the engine; processes live on or end as their node decides."""


class KeyValueStore(ABC):
    """A small durable store for the checkpoint."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the value saved last, or None."""

    @abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Save a value; when this returns it survives the process's death."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Forget a key; an unknown one is no error."""

    @abstractmethod
    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that start with a prefix, sorted."""

    @abstractmethod
    def close(self) -> None:
        """Close the store."""


def how_it_ended(code: int | None, number: int | None) -> str:
    """Return what ended a process, as the end of a sentence about it."""
    if number is None:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"


def readable(resources: Mapping[str, float]) -> str:
    """Return resources as text for messages, like {"GPU": 2}."""
    return "{" + ", ".join(f'"{name}": {amount:.10g}' for name, amount in sorted(resources.items())) + "}"
