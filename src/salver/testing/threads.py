"""An engine whose processes are threads of this one, each with an event loop of its own.

What is true of a thread that stands for a process and not of a real one: it cannot be killed, and nothing of the
environment, the working directory or the devices is its own.
"""

import asyncio
import importlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from salver.engine.base import CPU, Engine, Exit, Living, OnExit, ProcessContext, ProcessSpec, Started
from salver.lib import preloaded
from salver.lib.process_local import become_process
from salver.lib.tracebacks import user_traceback
from salver.schema.application import Preload
from salver.schema.errors import StartFailed
from salver.schema.messages import NodeReport
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.framing import FrameSink
from salver.transport.memory import MemoryListener, MemoryNetwork
from salver.transport.sockets import Dial

OnFailure = Callable[[ProcessSpec, BaseException], None]

NODE_ID = "local"
KILL_GRACE_S = 2.0
"""How long user code may take to notice that it was cancelled, before its thread is left behind."""

logger = logging.getLogger(LOGGER_NAME)


class ThreadContext(ProcessContext, frozen=True, kw_only=True):
    """What a thread that stands for a process learns of its place."""

    thread: "ProcessThread"

    @property
    def address(self) -> str:
        """Return the address that others dial to reach this one."""
        return f"memory:{self.name}"

    @property
    def dial(self) -> Dial:
        """Return what opens connections to others."""
        return self.thread.network.dial

    async def listen(self, accept: Callable[[], FrameSink]) -> MemoryListener:
        """Listen for others."""
        return await self.thread.network.listen(self.address, accept)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call back in the running event loop when this one is asked to stop."""
        self.thread.on_stop(callback)

    def failed(self, error: BaseException) -> None:
        """Keep what user code raised, for whoever waits for it in this process."""
        self.thread.on_failure(self.thread.spec, error)


class ProcessThread:
    """One thread that stands for a process.

    Attributes:
        loop: Its event loop, once that runs.
        gone: It has ended, or was left behind; of the engine's loop.

    Args:
        on_failure: Hears what user code raised while it started.
        on_end: Called in the thread when it ends, with the exit code and the last words.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        network: MemoryNetwork,
        on_failure: OnFailure,
        on_end: Callable[["ProcessThread", int, str], None],
    ) -> None:
        self.spec = spec
        self.network = network
        self.on_failure = on_failure
        self._on_end = on_end
        self._stopped = False
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._main: asyncio.Task[object] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.gone = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name=spec.name, daemon=True)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call back in the running event loop when it is asked to stop, at once if it was."""
        with self._lock:
            self.loop, self._main, self._stop = asyncio.get_running_loop(), asyncio.current_task(), callback
            stopped = self._stopped
        if stopped:
            callback()

    def stop(self) -> None:
        """Ask it to stop."""
        with self._lock:
            self._stopped = True
            if self.loop is not None and self._stop is not None:
                _call(self.loop, self._stop)

    def kill(self) -> None:
        """Cancel what it does, as far as that is possible."""
        self.stop()
        if self.loop is not None and self._main is not None:
            _call(self.loop, self._main.cancel)

    def _run(self) -> None:
        become_process()
        module, _, function = self.spec.entry.partition(":")
        context = ThreadContext(
            name=self.spec.name,
            node_id=NODE_ID,
            instance_dir="",
            parent_pid=os.getpid(),
            listeners={},
            thread=self,
        )
        code, words = 0, ""
        try:
            getattr(importlib.import_module(module), function)(self.spec.payload, context)
        except asyncio.CancelledError:
            code, words = 1, "It was killed."
        except BaseException as error:  # noqa: BLE001 - it ends this thread as it would end a process, and is told
            code, words = 1, user_traceback(error)
        self._on_end(self, code, words)


class ThreadEngine(Engine):
    """Starts threads in place of processes; made and used in one event loop.

    Args:
        network: Connects them.
        on_failure: Hears what user code raised while it started.
    """

    def __init__(self, network: MemoryNetwork, on_failure: OnFailure) -> None:
        self._network = network
        self._on_failure = on_failure
        self._on_exit: list[OnExit] = []
        self._running: dict[str, ProcessThread] = {}
        self._loop = asyncio.get_running_loop()

    async def start(self, spec: ProcessSpec) -> Started:
        """Start a thread."""
        if spec.name in self._running:
            raise StartFailed(f"A process named {spec.name} runs already.")
        process = ProcessThread(spec, self._network, self._on_failure, self._ended)
        self._running[spec.name] = process
        process.thread.start()
        return Started(spec.name, os.getpid(), NODE_ID)

    async def signal(self, name: str, *, kill: bool = False) -> None:
        """Ask a thread to stop; one that is killed and does not end soon is left behind."""
        process = self._running.get(name)
        if process is None:
            return
        if not kill:
            process.stop()
            return
        process.kill()
        self._loop.call_later(KILL_GRACE_S, self._leave_behind, process)

    async def processes(self) -> list[Living]:
        """Return the threads that run."""
        return [Living(name, os.getpid(), NODE_ID, each.spec.note) for name, each in self._running.items()]

    async def nodes(self) -> list[NodeReport]:
        """Return this machine."""
        total = {CPU: float(os.cpu_count() or 1)}
        return [NodeReport(NODE_ID, total, dict(total))]

    async def release(self, preload: Preload) -> None:
        """Forget code that has no import path."""
        preloaded.forget(preload.blobs)

    def on_exit(self, callback: OnExit) -> None:
        """Call back for each thread that ends."""
        self._on_exit.append(callback)

    async def close(self) -> None:
        """Kill what still runs."""
        self._on_exit.clear()
        killed = list(self._running.values())
        for process in killed:
            process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_GRACE_S):
                for process in killed:
                    await process.gone.wait()
        for process in killed:
            self._leave_behind(process)

    def _ended(self, process: ProcessThread, code: int, words: str) -> None:
        _call(self._loop, self._tell, process, code, words)

    def _tell(self, process: ProcessThread, code: int, words: str) -> None:
        if self._running.get(process.spec.name) is not process:
            return
        process.thread.join()
        self._forget(process, Exit(process.spec.name, code, None, words))

    def _leave_behind(self, process: ProcessThread) -> None:
        if self._running.get(process.spec.name) is not process:
            return
        logger.warning("%s: its user code does not end; its thread is left behind.", process.spec.name)
        self._forget(process, Exit(process.spec.name, None, 9))

    def _forget(self, process: ProcessThread, exit_: Exit) -> None:
        del self._running[process.spec.name]
        process.gone.set()
        if process.loop is not None:
            self._network.cut(process.loop)
        for callback in self._on_exit:
            callback(exit_)


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        # The loop has ended meanwhile, which is what was wanted, or there is nobody to be told.
        return
