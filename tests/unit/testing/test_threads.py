"""Threads that stand for processes: how they begin, stop, fail and are left behind."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from salver.engine.base import Exit, ProcessContext, ProcessSpec
from salver.lib import preloaded
from salver.lib.process_local import ProcessLocal
from salver.schema.application import Preload
from salver.schema.errors import StartFailed
from salver.testing import threads
from salver.testing.threads import ThreadEngine
from salver.transport.framing import FrameConnection
from salver.transport.memory import MemoryNetwork
from salver.transport.wire import TELL
from tests.unit.transport.test_memory import Sink
from tests.waiting import wait_until

HERE = "tests.unit.testing.test_threads"
MINE: ProcessLocal[str] = ProcessLocal()
release = threading.Event()


def say(payload: bytes, context: ProcessContext) -> None:
    """Keep what it was told where only it can see it."""
    assert MINE.get() is None
    MINE.set(payload.decode())
    if payload == b"raise":
        raise LookupError("on purpose")


def wait(_payload: bytes, context: ProcessContext) -> None:
    """Run until it is asked to stop."""
    asyncio.run(_until_stopped(context))


def hold(_payload: bytes, context: ProcessContext) -> None:
    """Hold the event loop, whatever anybody wants."""

    async def held() -> None:
        context.on_stop(lambda: None)
        release.wait(20)

    asyncio.run(held())


async def _until_stopped(context: ProcessContext) -> None:
    stop = asyncio.Event()
    context.on_stop(stop.set)
    await context.listen(Sink)
    await stop.wait()


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def exits() -> list[Exit]:
    return []


@pytest.fixture
async def engine(
    network: MemoryNetwork, exits: list[Exit], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ThreadEngine]:
    """An engine that leaves no thread behind."""
    monkeypatch.setattr(threads, "KILL_GRACE_S", 0.2)
    release.clear()
    before = set(threading.enumerate())
    made = ThreadEngine(network, lambda _spec, _error: None)
    made.on_exit(exits.append)
    yield made
    await made.close()
    release.set()
    await wait_until(lambda: set(threading.enumerate()) <= before, within_s=10, what="no thread")


def spec(function: str, payload: bytes = b"", name: str = "it") -> ProcessSpec:
    """Return what to start."""
    return ProcessSpec(name, f"{HERE}:{function}", payload)


async def test_each_has_values_of_its_own_and_its_end_is_told(engine: ThreadEngine, exits: list[Exit]) -> None:
    await engine.start(spec("say", b"one", "first"))
    await engine.start(spec("say", b"two", "second"))
    await wait_until(lambda: len(exits) == 2, within_s=10, what="both ends")
    assert [(each.code, each.signal) for each in exits] == [(0, None), (0, None)]
    assert MINE.get() is None


async def test_one_that_raises_ends_with_its_traceback(engine: ThreadEngine, exits: list[Exit]) -> None:
    await engine.start(spec("say", b"raise"))
    await wait_until(lambda: exits, within_s=10, what="the end")
    assert exits[0].code == 1
    assert exits[0].last_output.endswith("LookupError: on purpose")


async def test_a_name_is_one_living_threads(engine: ThreadEngine, exits: list[Exit]) -> None:
    await engine.start(spec("wait"))
    with pytest.raises(StartFailed, match="runs already"):
        await engine.start(spec("wait"))
    await engine.signal("it")
    await wait_until(lambda: exits, within_s=10, what="the end")
    await engine.start(spec("wait"))


@pytest.mark.parametrize(("kill", "code"), [(False, 0), (True, 1)])
async def test_one_stops_when_it_is_asked_to(engine: ThreadEngine, exits: list[Exit], kill: bool, code: int) -> None:
    await engine.start(spec("wait"))
    await engine.signal("it", kill=kill)
    await engine.signal("nobody", kill=kill)
    await wait_until(lambda: exits, within_s=10, what="the end")
    assert exits[0].code == (code if exits[0].last_output else 0), "asked before it listened, it ends in order"


async def test_its_connections_break_when_it_ends(engine: ThreadEngine, network: MemoryNetwork) -> None:
    await engine.start(spec("wait"))
    near = Sink()
    connection = await _dialled(network, near)
    connection.send(TELL, 1)
    await engine.signal("it", kill=True)
    await wait_until(lambda: near.events, within_s=10, what="the break")
    assert connection.closed


async def test_one_that_cannot_be_stopped_is_left_behind_with_a_word(
    engine: ThreadEngine, exits: list[Exit], caplog: pytest.LogCaptureFixture
) -> None:
    await engine.start(spec("hold"))
    began = time.monotonic()
    await engine.signal("it", kill=True)
    await wait_until(lambda: exits, within_s=10, what="the end")
    assert time.monotonic() - began < 10
    assert exits[0].signal == 9
    assert "it: its user code does not end; its thread is left behind." in caplog.text


async def test_closing_ends_all(engine: ThreadEngine, exits: list[Exit]) -> None:
    for name in ("first", "second"):
        await engine.start(spec("wait", name=name))
    await engine.start(spec("hold", name="third"))
    await engine.close()
    assert exits == [], "nobody is told any more"
    alive = [each.name for each in threading.enumerate()]
    assert "first" not in alive
    assert "second" not in alive


async def test_released_code_is_forgotten(engine: ThreadEngine) -> None:
    name = preloaded.keep(spec)
    assert preloaded.get(name) is spec
    await engine.release(Preload("here", blobs={name: b""}))
    with pytest.raises(KeyError):
        preloaded.get(name)


async def _dialled(network: MemoryNetwork, sink: Sink) -> FrameConnection:
    async def connected() -> FrameConnection | None:
        with suppress(Exception):
            return await network.dial("memory:it", sink)
        return None

    connection = await wait_until(connected, within_s=10, what="somebody listening")
    assert connection is not None
    return connection
