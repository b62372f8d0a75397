"""A fake engine for tests and simulation: processes that start, fail to start, hang, exit and die on order.

No process, no socket and no clock; resources are counted as the local engine counts them.
"""

import asyncio
import itertools
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from signal import SIGKILL, SIGTERM
from socket import socket

from salver.engine.base import (
    CPU,
    Engine,
    Exit,
    KeyValueStore,
    Living,
    OnExit,
    ProcessContext,
    ProcessSpec,
    Started,
)
from salver.engine.hardware import device_environment
from salver.engine.outputs import KEPT_LINES
from salver.engine.resources import Grant, Ledger
from salver.schema.application import Preload
from salver.schema.errors import ResourcesUnavailable, StartFailed
from salver.schema.messages import NodeReport

Program = Callable[["FakeProcess"], Awaitable[int | None]]
BeforeStart = Callable[[ProcessSpec], Awaitable[None]]


class FakeProcess:
    """What a program sees of itself, and a test of the process.

    Attributes:
        env: The variables that its spec and its GPUs give it.
    """

    def __init__(self, spec: ProcessSpec, context: ProcessContext, pid: int, env: Mapping[str, str]) -> None:
        self.spec = spec
        self.context = context
        self.pid = pid
        self.env = env
        self.said: deque[str] = deque(maxlen=KEPT_LINES)
        self._stop = asyncio.Event()
        self.handles_stop = False

    def say(self, *lines: str) -> None:
        """Write lines of output."""
        self.said.extend(lines)

    async def wait_for_stop(self) -> None:
        """Handle SIGTERM, which would end the process otherwise: return when it is asked to stop."""
        self.handles_stop = True
        await self._stop.wait()

    def ask_to_stop(self) -> None:
        """Deliver SIGTERM to a program that handles it."""
        self._stop.set()


class FakeEngine(Engine):
    """An engine whose processes only pretend.

    Args:
        nodes: Resources of each node; one node with 4 CPUs when left out.
        programs: What processes do, by entry. One that returns a number or None ends with that exit code or 0; one
            that raises ends with 1 and its traceback as output. A process without a program does nothing, for ever.
        strict_cpus: Refuse more CPUs than there are.
        listeners: Listening sockets that processes may inherit, by name.

    Attributes:
        running: The processes that live, by name.
        broken_modules: Preloads of these modules fail, with this text as the user's traceback.
        before_start: Awaited in each start: may raise `StartFailed`, or never return.
    """

    def __init__(
        self,
        nodes: Mapping[str, Mapping[str, float]] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        strict_cpus: bool = False,
        listeners: Mapping[str, socket] | None = None,
    ) -> None:
        self.running: dict[str, FakeProcess] = {}
        self.broken_modules: dict[str, str] = {}
        self.before_start: BeforeStart | None = None
        self._ledgers = {
            node_id: Ledger(total, strict_cpus=strict_cpus)
            for node_id, total in (nodes or {"fake": {CPU: 4.0}}).items()
        }
        self._programs = dict(programs or {})
        self._listeners = dict(listeners or {})
        self._on_exit: list[OnExit] = []
        self._starting: dict[str, asyncio.Timeout] = {}
        self._tasks: dict[str, asyncio.Task[int | None]] = {}
        self._pids = itertools.count(1_000_001)

    async def start(self, spec: ProcessSpec) -> Started:
        """Start a process."""
        if spec.name in self.running or spec.name in self._starting:
            raise StartFailed(f"A process named {spec.name} runs already.")
        if missing := set(spec.listeners) - set(self._listeners):
            raise StartFailed(f"{spec.name}: there is no listener named {', '.join(sorted(missing))}.")
        node_id, grant = self._take(spec)
        try:
            await self._prepare(spec)
        except BaseException:
            self._ledgers[node_id].give_back(spec.name)
            raise
        process = self._make(spec, node_id, grant)
        self.running[spec.name] = process
        if (program := self._programs.get(spec.entry)) is not None:
            self._run(process, program)
        return Started(spec.name, process.pid, node_id)

    async def signal(self, name: str, *, kill: bool = False) -> None:
        """Stop or kill a process."""
        scope = self._starting.get(name)
        process = self.running.get(name)
        if scope is not None and not scope.expired():
            scope.reschedule(0)
        elif process is not None and not kill and process.handles_stop:
            process.ask_to_stop()
        elif process is not None:
            self.die(name, SIGKILL if kill else SIGTERM)

    async def processes(self) -> list[Living]:
        """Return the processes that live."""
        return [Living(name, each.pid, each.context.node_id, each.spec.note) for name, each in self.running.items()]

    async def nodes(self) -> list[NodeReport]:
        """Return the nodes."""
        return [NodeReport(node_id, dict(ledger.total), ledger.free) for node_id, ledger in self._ledgers.items()]

    async def release(self, preload: Preload) -> None:
        """Do nothing: nothing is kept warm."""

    def on_exit(self, callback: OnExit) -> None:
        """Call back for each process that ends."""
        self._on_exit.append(callback)

    async def close(self) -> None:
        """Forget all processes, without a word to anybody."""
        self._on_exit.clear()
        for name in list(self.running):
            self.die(name, SIGKILL)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # Orders

    def exit(self, name: str, code: int = 0) -> None:
        """Let a process end by itself."""
        self._end(name, code, None)

    def die(self, name: str, number: int = SIGKILL) -> None:
        """Let a process be ended by a signal."""
        self._end(name, None, number)

    def _end(self, name: str, code: int | None, number: int | None) -> None:
        process = self.running.pop(name)
        if (task := self._tasks.pop(name, None)) is not None:
            task.cancel()
        self._ledgers[process.context.node_id].give_back(name)
        exit_ = Exit(name, code, None if number is None else int(number), "\n".join(process.said))
        # Later, as from any other process: nobody hears of an end while they still order it.
        asyncio.get_running_loop().call_soon(self._tell, exit_)

    def _tell(self, exit_: Exit) -> None:
        for callback in self._on_exit:
            callback(exit_)

    def _take(self, spec: ProcessSpec) -> tuple[str, Grant]:
        refusals = []
        for node_id, ledger in self._ledgers.items():
            try:
                return node_id, ledger.take(spec.name, spec.resources)
            except ResourcesUnavailable as error:
                refusals.append(str(error))
        raise ResourcesUnavailable(" ".join(refusals))

    async def _prepare(self, spec: ProcessSpec) -> None:
        scope = self._starting[spec.name] = asyncio.timeout(None)
        try:
            async with scope:
                if self.before_start is not None:
                    await self.before_start(spec)
        except TimeoutError:
            raise StartFailed(f"{spec.name} was stopped while it started.") from None
        finally:
            del self._starting[spec.name]
        for module in spec.preload.modules if spec.preload is not None else ():
            if module in self.broken_modules:
                raise StartFailed(self.broken_modules[module])

    def _make(self, spec: ProcessSpec, node_id: str, grant: Grant) -> FakeProcess:
        devices = device_environment(sorted(grant.gpus)) if spec.preload is not None else {}
        context = ProcessContext(
            name=spec.name,
            node_id=node_id,
            instance_dir="/fake",
            parent_pid=1_000_000,
            listeners={name: self._listeners[name] for name in spec.listeners},
        )
        return FakeProcess(spec, context, next(self._pids), {**spec.env, **devices})

    def _run(self, process: FakeProcess, program: Program) -> None:
        name = process.spec.name
        task = asyncio.get_running_loop().create_task(self._code_of(process, program), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda task: None if task.cancelled() else self.exit(name, task.result() or 0))

    async def _code_of(self, process: FakeProcess, program: Program) -> int | None:
        try:
            return await program(process)
        except Exception:  # noqa: BLE001 - a program may raise anything, as a process may
            process.say(*traceback.format_exc().splitlines())
            return 1


class MemoryStore(KeyValueStore):
    """A key-value store that lasts as long as this object."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """Return the value saved last, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Save a value."""
        self._entries[key] = value

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._entries.pop(key, None)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that start with a prefix, sorted."""
        return sorted(key for key in self._entries if key.startswith(prefix))

    def close(self) -> None:
        """Keep everything: there is nothing to close."""
