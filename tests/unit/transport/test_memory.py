"""The in-process twin does what it is ordered to; what it promises otherwise is in tests/contract."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvloop

from salver.schema.errors import Disconnected
from salver.transport.framing import FrameConnection
from salver.transport.memory import MemoryListener, MemoryNetwork
from salver.transport.wire import TELL
from tests.waiting import wait_until


class Sink:
    """Remembers what happened."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.connection: FrameConnection

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.events.append(stream)

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.events.append(error)


async def connected() -> tuple[MemoryNetwork, Sink, Sink]:
    """Return a network and the two ends of its only connection."""
    network, near, far = MemoryNetwork(), Sink(), Sink()
    await network.listen("here", lambda: far)
    await network.dial("here", near)
    return network, near, far


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_held_arrives_when_it_is_released() -> None:
    network, near, far = await connected()
    network.ends[0].hold()
    near.connection.send(TELL, 1)
    near.connection.send(TELL, 2)
    await settle()
    assert far.events == []
    network.ends[0].release()
    await settle()
    assert far.events == [1, 2]


async def test_each_direction_is_held_by_itself() -> None:
    network, near, far = await connected()
    network.ends[0].other.hold()
    near.connection.send(TELL, 1)
    far.connection.send(TELL, 2)
    await settle()
    assert (near.events, far.events) == ([], [1])


async def test_what_is_dropped_is_lost_and_nobody_notices() -> None:
    network, near, far = await connected()
    near.connection.send(TELL, 1)
    await settle()
    network.ends[0].drop()
    near.connection.send(TELL, 2)
    far.connection.send(TELL, 3)
    await settle()
    assert (near.events, far.events) == ([3], [1])
    assert not near.connection.closed


async def test_a_cut_loses_what_is_under_way_and_both_ends_learn_of_it() -> None:
    network, near, far = await connected()
    network.ends[0].hold()
    near.connection.send(TELL, 1)
    await settle()
    network.ends[0].cut()
    await settle()
    for sink in (near, far):
        assert [type(event) for event in sink.events] == [ConnectionResetError]
        assert sink.connection.closed


async def test_a_close_that_is_held_is_learned_of_later() -> None:
    network, near, far = await connected()
    network.ends[0].hold()
    near.connection.send(TELL, 1)
    near.connection.close()
    await settle()
    assert (near.events, far.events) == ([None], [])
    network.ends[0].release()
    await settle()
    assert far.events == [1, None]


# ── event loops of different threads ────────────────────────────────────────────────────────────────────────────────


class Echo:
    """Sends back what it gets, from a loop of its own, and notes in which thread it was asked to."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.closed = threading.Event()
        self.connection: FrameConnection

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.threads.add(threading.get_ident())
        self.connection = connection

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.threads.add(threading.get_ident())
        self.connection.send(kind, stream, header, body)

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.threads.add(threading.get_ident())
        self.closed.set()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop: asyncio.AbstractEventLoop = request.param()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def listening(network: MemoryNetwork, echo: Echo, loop: asyncio.AbstractEventLoop) -> MemoryListener:
    """Listen in another loop."""
    listen = asyncio.run_coroutine_threadsafe(network.listen("there", lambda: echo), loop)
    return await asyncio.wrap_future(listen)


async def test_bytes_go_between_threads_in_order_and_each_end_is_called_in_its_own(
    elsewhere: asyncio.AbstractEventLoop,
) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    await listening(network, echo, elsewhere)
    connection = await network.dial("there", near)
    for stream in range(1, 201):
        connection.send(TELL, stream, body=bytes(10_000))
        await connection.drain()
    await wait_until(lambda: len(near.events) == 200, within_s=10, what="all that was sent")
    assert near.events == list(range(1, 201))
    assert len(echo.threads) == 1
    assert threading.get_ident() not in echo.threads


async def test_a_writer_is_held_up_by_a_reader_in_another_thread_and_goes_on_when_it_reads(
    elsewhere: asyncio.AbstractEventLoop,
) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    await listening(network, echo, elsewhere)
    connection = await network.dial("there", near)
    busy = threading.Event()
    elsewhere.call_soon_threadsafe(busy.wait, 10)
    connection.send(TELL, 1, body=bytes(200_000))
    drained = asyncio.get_running_loop().create_task(connection.drain())
    await settle()
    assert connection.congested
    assert not drained.done()
    busy.set()
    await asyncio.wait_for(drained, 10)
    assert not connection.congested


async def test_an_end_that_closes_is_noticed_in_the_other_thread(elsewhere: asyncio.AbstractEventLoop) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    listener = await listening(network, echo, elsewhere)
    connection = await network.dial("there", near)
    connection.close()
    assert await asyncio.to_thread(echo.closed.wait, 10)
    await wait_until(lambda: near.events == [None], within_s=10, what="the close")
    elsewhere.call_soon_threadsafe(listener.close)
    await wait_until(lambda: _refused(network), within_s=10, what="nobody listening")


async def test_the_end_of_a_loop_breaks_its_connections(elsewhere: asyncio.AbstractEventLoop) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    await listening(network, echo, elsewhere)
    connection = await network.dial("there", near)
    network.cut(elsewhere)
    await wait_until(lambda: near.events, within_s=10, what="the break")
    assert isinstance(near.events[0], ConnectionResetError)
    assert connection.closed


async def test_whoever_dials_where_a_loop_has_ended_is_told(elsewhere: asyncio.AbstractEventLoop) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    await listening(network, echo, elsewhere)
    elsewhere.call_soon_threadsafe(elsewhere.stop)
    await wait_until(lambda: not elsewhere.is_running(), within_s=10, what="the end of the loop")
    elsewhere.close()
    with pytest.raises(Disconnected, match="has ended"):
        await network.dial("there", near)


async def test_a_dial_that_nobody_waits_for_any_longer_opens_nothing(elsewhere: asyncio.AbstractEventLoop) -> None:
    network, near, echo = MemoryNetwork(), Sink(), Echo()
    await listening(network, echo, elsewhere)
    busy = threading.Event()
    elsewhere.call_soon_threadsafe(busy.wait, 10)
    dial = asyncio.get_running_loop().create_task(network.dial("there", near))
    await settle()
    dial.cancel()
    busy.set()
    assert await asyncio.to_thread(echo.closed.wait, 10)
    assert near.events == []


async def _refused(network: MemoryNetwork) -> bool:
    try:
        (await network.dial("there", Sink())).close()
    except Disconnected:
        return True
    return False
