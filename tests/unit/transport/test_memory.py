"""The in-process twin does what it is ordered to; what it promises otherwise is in tests/contract."""

import asyncio

from salver.transport.framing import FrameConnection
from salver.transport.memory import MemoryNetwork
from salver.transport.wire import TELL


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
