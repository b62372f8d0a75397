"""Which zygotes an agent keeps: one with Salver's own code, one for each preload."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from salver.engine.base import how_it_ended
from salver.engine.midwife import Midwife, Zygote
from salver.engine.orders import LineClosed, Load, Loaded, LoadFailed, Run
from salver.engine.outputs import Terminal, open_output
from salver.engine.zygote import FORKING_IS_SAFE_HERE
from salver.lib.tasks import Tasks
from salver.schema.application import Preload
from salver.schema.errors import StartFailed

# A zygote may die with the order in flight, and so may the next, whose end was not noticed yet.
ATTEMPTS = 3
# A replacement of the base zygote that dies sooner than this is replaced when it is needed, not at once.
SHORT_LIFE_S = 1.0
LAST_WORDS_S = 0.5

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class _Import(msgspec.Struct, eq=False):
    """A preload's zygote: coming, or there."""

    done: asyncio.Future[Zygote]
    work: asyncio.Task[None]
    waiting: int = 0

    def end(self) -> None:
        """Stop the import, or end the zygote that came of it."""
        self.work.cancel()
        if self.done.done() and self.done.exception() is None:
            self.done.result().kill()


class Nursery:
    """All zygotes of a node.

    Args:
        base: The zygote that was forked before the agent's loop began; None where forking is unsafe.
        terminal: Told why imports are not shared.
        tasks: Owns the imports.
    """

    def __init__(self, midwife: Midwife, base: Zygote | None, terminal: Terminal, *, tasks: Tasks) -> None:
        self._midwife = midwife
        self._first = base
        self._base = base
        self._base_turn = asyncio.Lock()
        self._terminal = terminal
        self._tasks = tasks
        self._zygotes = {} if base is None else {base.pid: base}
        self._imports: dict[bytes, _Import] = {}
        self._unforkable: set[bytes] = set()
        self._closed = False

    async def bear(self, order: Run, fds: Sequence[int], preload: Preload | None) -> int:
        """Start a process where its preload is in memory, and return its pid.

        Raises:
            StartFailed: The preload failed, zygotes died again and again, or the system refused.
        """
        for _ in range(ATTEMPTS):
            zygote, must_become = await self._zygote_for(preload)
            try:
                process = zygote if must_become else await self._midwife.fork(zygote)
            except LineClosed:
                self._forget_if_dead(zygote)
                continue
            try:
                await process.line.send(order, fds)
            except LineClosed:
                process.kill()
            except BaseException:
                process.kill()
                raise
            else:
                process.line.close()
                self._zygotes.pop(process.pid, None)
                return process.pid
        raise StartFailed(f"{order.name} could not be started: what it is forked from died {ATTEMPTS} times.")

    def release(self, preload: Preload) -> None:
        """Let the zygote of a preload go."""
        key = _key(preload)
        self._unforkable.discard(key)
        entry = self._imports.pop(key, None)
        if entry is not None:
            entry.end()

    def owns(self, pid: int) -> bool:
        """Say whether a process is a zygote."""
        return pid in self._zygotes

    def ended(self, pid: int, status: int) -> None:
        """Hear that a child of the agent was reaped; one that is no zygote is no error."""
        zygote = self._zygotes.pop(pid, None)
        if zygote is None:
            return
        zygote.ended.set_result(status)
        self._forget(zygote)
        lives_long = zygote is self._first or time.monotonic() - zygote.born_at > SHORT_LIFE_S
        if zygote.janitor and lives_long and not self._closed:
            self._tasks.start(self._replace_janitor(), name="another zygote")

    def close(self) -> None:
        """End all zygotes but the base, the janitor, which goes last."""
        self._closed = True
        for entry in self._imports.values():
            entry.end()
        self._imports.clear()

    # Choosing

    async def _zygote_for(self, preload: Preload | None) -> tuple[Zygote, bool]:
        """Return a zygote, and whether it must turn into the process instead of being forked."""
        if preload is None:
            if FORKING_IS_SAFE_HERE:
                return await self._any_base(), False
            return await self._spawn("process", janitor=False), True
        key = _key(preload)
        if key in self._unforkable:
            return await self._load(preload), True
        entry = self._imports.get(key)
        if entry is None:
            done: asyncio.Future[Zygote] = asyncio.get_running_loop().create_future()
            work = self._tasks.start(self._import(preload, done), name=f"import {_described(preload)}")
            entry = self._imports[key] = _Import(done, work)
        zygote = await self._imported(key, entry)
        if zygote.unforkable is None and FORKING_IS_SAFE_HERE:
            return zygote, False
        self._unforkable.add(key)
        # The first to come takes the zygote that has the code already; the others load their own.
        is_first = self._drop(key, entry)
        return (zygote if is_first else await self._load(preload)), True

    async def _imported(self, key: bytes, entry: _Import) -> Zygote:
        entry.waiting += 1
        try:
            return await asyncio.shield(entry.done)
        except StartFailed as error:
            self._drop(key, entry)
            raise StartFailed(str(error)) from None
        finally:
            entry.waiting -= 1
            if entry.waiting == 0 and not entry.done.done():
                # Whoever wanted it has given up.
                self._drop(key, entry)
                entry.work.cancel()

    def _drop(self, key: bytes, entry: _Import) -> bool:
        """Forget an import; return whether it was there."""
        if self._imports.get(key) is not entry:
            return False
        del self._imports[key]
        return True

    def _forget_if_dead(self, zygote: Zygote) -> None:
        if not zygote.line.is_open:
            self._forget(zygote)

    def _forget(self, zygote: Zygote) -> None:
        zygote.line.close()
        if zygote is self._base:
            self._base = None
        for key, entry in list(self._imports.items()):
            if entry.done.done() and entry.done.exception() is None and entry.done.result() is zygote:
                del self._imports[key]

    # Making

    async def _import(self, preload: Preload, done: asyncio.Future[Zygote]) -> None:
        try:
            done.set_result(await self._load(preload))
        except StartFailed as error:
            done.set_exception(error)
        except asyncio.CancelledError:
            done.set_exception(StartFailed(f"{_described(preload)} is not wanted any more."))
            raise
        except OSError as error:
            done.set_exception(StartFailed(f"{_described(preload)} could not be imported: {error}."))
        # Nobody may be waiting for the failure.
        done.exception()

    async def _load(self, preload: Preload) -> Zygote:
        """Return a zygote that has the preload in memory."""
        zygote = await self._new_zygote()
        name = f"import {_described(preload)}"
        try:
            zygote.output, write_end = await open_output(name, self._terminal.show)
            try:
                await zygote.line.send(Load(preload, name), [write_end])
            finally:
                os.close(write_end)
            report = await zygote.line.receive()
            if isinstance(report, LoadFailed):
                raise StartFailed(report.reason)
        except LineClosed:
            reason = await self._how_it_died(zygote)
            zygote.kill()
            raise StartFailed(f"The process that imported {_described(preload)} {reason}") from None
        except BaseException:
            zygote.kill()
            raise
        assert isinstance(report, Loaded)
        zygote.unforkable = report.unforkable
        self._say_if_unforkable(preload, report)
        return zygote

    async def _new_zygote(self) -> Zygote:
        """Return a zygote without users' code."""
        if not FORKING_IS_SAFE_HERE:
            return await self._spawn("process", janitor=False)
        for _ in range(ATTEMPTS):
            base = await self._any_base()
            try:
                zygote = await self._midwife.fork(base, for_code=True)
            except LineClosed:
                self._forget_if_dead(base)
            else:
                self._zygotes[zygote.pid] = zygote
                return zygote
        raise StartFailed(f"The process that others are forked from died {ATTEMPTS} times.")

    async def _any_base(self) -> Zygote:
        async with self._base_turn:
            if self._base is None:
                self._base = await self._spawn("zygote", janitor=True)
            return self._base

    async def _replace_janitor(self) -> None:
        with contextlib.suppress(StartFailed):
            await self._any_base()

    async def _spawn(self, name: str, *, janitor: bool) -> Zygote:
        try:
            zygote = await self._midwife.spawn(name, janitor=janitor)
        except LineClosed:
            raise StartFailed(f"{sys.executable} could not be started.") from None
        self._zygotes[zygote.pid] = zygote
        return zygote

    async def _how_it_died(self, zygote: Zygote) -> str:
        await asyncio.wait([zygote.ended], timeout=LAST_WORDS_S)
        said = await zygote.output.finished(LAST_WORDS_S) if zygote.output is not None else ""
        how = "died"
        if zygote.ended.done():
            code = os.waitstatus_to_exitcode(zygote.ended.result())
            how = how_it_ended(*((code, None) if code >= 0 else (None, -code)))
        return f"{how} before it was done." + (f" Its last lines:\n{said}" if said else "")

    def _say_if_unforkable(self, preload: Preload, report: Loaded) -> None:
        if report.unforkable is not None and _key(preload) not in self._unforkable:
            self._terminal.say(
                f"{_described(preload)}: {report.unforkable}, so each replica imports it anew instead of being forked."
            )


def _key(preload: Preload) -> bytes:
    return sha256(_encode(preload)).digest()


def _described(preload: Preload) -> str:
    return ", ".join(preload.modules) or "the application's code"
