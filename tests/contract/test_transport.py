"""What every transport promises: the in-process twin and Unix sockets, by the same tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop

from salver.lib.tasks import Tasks
from salver.schema.errors import Disconnected, ProtocolError, SalverError
from salver.schema.messages import Done, Drain, FindApplication, GetStatus, Message, Subscribe, Unsubscribe
from salver.transport import sockets
from salver.transport.framing import FrameConnection, FrameSink
from salver.transport.memory import MemoryNetwork
from salver.transport.peer import Peer, Refused, encode_message
from salver.transport.wire import HEAD, HELLO, TELL, VERSION
from tests.waiting import wait_until


class Listener(Protocol):
    """A place that can be dialled."""

    def close(self) -> None:
        """Accept nobody new."""


class Net(Protocol):
    """A transport as these tests use it."""

    address: str

    async def dial(self, address: str, sink: FrameSink) -> FrameConnection:
        """Open a connection."""

    async def listen(self, address: str, accept: Callable[[], FrameSink]) -> Listener:
        """Wait for connections."""

    def stall(self, connection: FrameConnection) -> None:
        """Let the other end of a dialled connection not read."""

    def go_on(self, connection: FrameConnection) -> None:
        """Let it read again."""


class MemoryNet(MemoryNetwork):
    """The in-process twin."""

    address = "memory:here"

    def stall(self, connection: FrameConnection) -> None:
        """Part of Net."""
        self.ends[0].hold()

    def go_on(self, connection: FrameConnection) -> None:
        """Part of Net."""
        self.ends[0].release()


class UnixNet:
    """Unix sockets."""

    def __init__(self, directory: Path) -> None:
        self.address = sockets.unix_address(directory / "s.sock")
        self._accepted: list[FrameSink] = []

    async def dial(self, address: str, sink: FrameSink) -> FrameConnection:
        """Part of Net."""
        return await sockets.dial(address, sink)

    async def listen(self, address: str, accept: Callable[[], FrameSink]) -> Listener:
        """Part of Net."""

        def remembered() -> FrameSink:
            self._accepted.append(accept())
            return self._accepted[-1]

        return await sockets.listen(address, remembered)

    def stall(self, connection: FrameConnection) -> None:
        """Part of Net."""
        self._reader().pause_reading()

    def go_on(self, connection: FrameConnection) -> None:
        """Part of Net."""
        self._reader().resume_reading()

    def _reader(self) -> Any:
        sink: Any = self._accepted[0]
        return sink.connection._transport


@pytest.fixture(params=["memory", "unix"])
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Net:
    return MemoryNet() if request.param == "memory" else UnixNet(tmp_path)


class Sink:
    """Remembers what happened."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes, bytes]] = []
        self.events: list[str] = []
        self.connection: FrameConnection
        self.error: Exception | None = None

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection
        self.events.append("opened")

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.events.append("frame")
        self.frames.append((stream, header, body))

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.error = error
        self.events.append("closed")


class Ends:
    """Both ends of a connection."""

    def __init__(self, near: Sink, far: Sink) -> None:
        self.near = near
        self.far = far


@pytest.fixture
async def ends(net: Net) -> AsyncIterator[Ends]:
    near, far = Sink(), Sink()
    listener = await net.listen(net.address, lambda: far)
    await net.dial(net.address, near)
    await wait_until(lambda: far.events, within_s=5, what="the connection")
    yield Ends(near, far)
    listener.close()
    near.connection.abort()
    await wait_until(lambda: far.events[-1] == "closed", within_s=5, what="the end of the connection")


async def test_frames_arrive_in_order_in_both_directions(ends: Ends) -> None:
    for number in range(1000):
        ends.near.connection.send(TELL, number, b"h", b"%d" % number)
        ends.far.connection.send(TELL, number, b"", b"back")
    await wait_until(lambda: len(ends.far.frames) == len(ends.near.frames) == 1000, within_s=5, what="all frames")
    assert ends.far.frames == [(number, b"h", b"%d" % number) for number in range(1000)]
    assert ends.near.frames == [(number, b"", b"back") for number in range(1000)]


async def test_a_large_frame_arrives_whole(ends: Ends) -> None:
    body = bytes(range(256)) * 40_000
    ends.near.connection.send(TELL, 1, b"head", body)
    ends.near.connection.send(TELL, 2)
    await wait_until(lambda: len(ends.far.frames) == 2, within_s=5, what="both frames")
    assert ends.far.frames == [(1, b"head", body), (2, b"", b"")]


async def test_what_was_sent_before_closing_arrives_before_the_end(ends: Ends) -> None:
    for number in range(100):
        ends.near.connection.send(TELL, number)
    ends.near.connection.close()
    await wait_until(lambda: ends.far.events[-1] == "closed", within_s=5, what="the end")
    assert ends.far.events == ["opened", *["frame"] * 100, "closed"]
    assert ends.far.error is None


async def test_both_ends_learn_of_a_close(ends: Ends) -> None:
    ends.far.connection.close()
    await wait_until(lambda: ends.near.events == ["opened", "closed"], within_s=5, what="the near end")
    await wait_until(lambda: ends.far.events == ["opened", "closed"], within_s=5, what="the far end")
    assert ends.near.connection.closed
    assert ends.far.connection.closed


async def test_both_ends_learn_of_an_abort_once(ends: Ends) -> None:
    ends.near.connection.abort()
    await wait_until(lambda: ends.far.events[-1] == "closed", within_s=5, what="the far end")
    await wait_until(lambda: ends.near.events[-1] == "closed", within_s=5, what="the near end")
    assert ends.near.events.count("closed") == ends.far.events.count("closed") == 1


async def test_a_reader_that_does_not_read_slows_the_writer(net: Net, ends: Ends) -> None:
    net.stall(ends.near.connection)
    connection = ends.near.connection
    for number in range(100):
        connection.send(TELL, number, b"", bytes(20_000))
    waiting = asyncio.get_running_loop().create_task(connection.drain())
    await wait_until(lambda: connection.congested, within_s=5, what="congestion")
    assert not waiting.done()
    net.go_on(connection)
    await asyncio.wait_for(waiting, timeout=5)
    await wait_until(lambda: len(ends.far.frames) == 100, within_s=5, what="all frames")


async def test_garbage_ends_the_connection_and_only_that(net: Net, ends: Ends) -> None:
    ends.near.connection._transport.write(HEAD.pack(0, 1, TELL, 0, 1, 0))  # type: ignore[union-attr]
    await wait_until(lambda: ends.far.events[-1] == "closed", within_s=5, what="the far end")
    assert isinstance(ends.far.error, ProtocolError)
    assert ends.far.frames == []


async def test_an_address_without_listener_is_disconnected(net: Net) -> None:
    with pytest.raises(Disconnected, match=f"nobody listens at {net.address}"):
        await net.dial(net.address, Sink())


async def test_a_closed_listener_accepts_nobody_new(net: Net) -> None:
    listener = await net.listen(net.address, Sink)
    listener.close()
    with pytest.raises(Disconnected):
        await net.dial(net.address, Sink())


def test_frames_cross_on_uvloop_too(tmp_path: Path) -> None:
    async def cross() -> None:
        net, near, far = UnixNet(tmp_path), Sink(), Sink()
        listener = await net.listen(net.address, lambda: far)
        await net.dial(net.address, near)
        near.connection.send(TELL, 7, b"head", bytes(1_000_000))
        await near.connection.drain()
        await wait_until(lambda: far.frames, within_s=5, what="the frame")
        assert far.frames == [(7, b"head", bytes(1_000_000))]
        near.connection.close()
        await wait_until(lambda: far.events[-1] == "closed", within_s=5, what="the end")
        listener.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cross())


# ── Peers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Office:
    """Answers by a table."""

    def __init__(self, answers: dict[type[Message], Callable[[], Awaitable[Message]]] | None = None) -> None:
        self.told: list[Message] = []
        self.gone = 0
        self._answers = answers or {}

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Part of Office."""
        return await self._answers[type(message)]()

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Part of Office."""
        self.told.append(message)

    def on_gone(self, peer: Peer) -> None:
        """Part of Office."""
        self.gone += 1


class Pair:
    """Two peers that are connected."""

    def __init__(self, office: Office) -> None:
        self.failed: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failed.append(f"{name}: {error!r}"))
        self.near_office = Office()
        self.far_office = office
        self.near = Peer(self.near_office, role="driver", name="near", tasks=self.tasks)
        self.far = Peer(self.far_office, role="controller", name="far", tasks=self.tasks)


MakePair = Callable[[Office], Awaitable[Pair]]


@pytest.fixture
async def make_pair(net: Net) -> AsyncIterator[MakePair]:
    pairs: list[Pair] = []
    listeners: list[Listener] = []

    async def make(office: Office) -> Pair:
        pair = Pair(office)
        pairs.append(pair)
        listeners.append(await net.listen(net.address, lambda: pair.far))
        await net.dial(net.address, pair.near)
        await wait_until(lambda: pair.near.other and pair.far.other, within_s=5, what="greetings")
        return pair

    yield make
    for listener, pair in zip(listeners, pairs, strict=True):
        listener.close()
        pair.near.close()
        await wait_until(lambda pair=pair: pair.far_office.gone, within_s=5, what="the end")  # type: ignore[misc]
        await pair.tasks.close()


async def test_peers_greet_each_other(make_pair: MakePair) -> None:
    pair = await make_pair(Office())
    assert pair.near.other is not None
    assert (pair.near.other.version, pair.near.other.role, pair.near.other_name) == (VERSION, "controller", "far")
    assert pair.far.other_name == "near"
    assert pair.near.connected
    assert pair.near.has_room


async def test_a_question_is_answered(make_pair: MakePair) -> None:
    async def answer() -> Message:
        return Unsubscribe("topic")

    pair = await make_pair(Office({GetStatus: answer}))
    assert await pair.near.ask(GetStatus(), Unsubscribe) == Unsubscribe("topic")


async def test_questions_are_answered_as_they_get_ready(make_pair: MakePair) -> None:
    ready = asyncio.Event()

    async def slow() -> Message:
        await ready.wait()
        return Done()

    async def quick() -> Message:
        ready.set()
        return Done()

    pair = await make_pair(Office({GetStatus: slow, FindApplication: quick}))
    slow_answer = asyncio.get_running_loop().create_task(pair.near.ask(GetStatus(), Done))
    await pair.near.ask(FindApplication("x"), Done)
    await asyncio.wait_for(slow_answer, timeout=5)


async def test_an_error_of_ours_is_refused_with_its_message(make_pair: MakePair) -> None:
    async def refuse() -> Message:
        raise SalverError("not today \ud800")

    pair = await make_pair(Office({GetStatus: refuse}))
    with pytest.raises(Refused, match="not today") as caught:
        await pair.near.ask(GetStatus(), Done)
    assert caught.value.kind == "SalverError"
    assert pair.failed == []


@pytest.mark.parametrize("reply", [None, {"an answer": object()}], ids=["raises", "returns what cannot be encoded"])
async def test_a_bug_in_the_answering_is_refused_and_heard_of(make_pair: MakePair, reply: object) -> None:
    async def answer() -> Any:
        if reply is None:
            raise LookupError("a bug")
        return reply

    pair = await make_pair(Office({GetStatus: answer}))
    with pytest.raises(Refused, match="internal error answering GetStatus"):
        await pair.near.ask(GetStatus(), Done)
    await wait_until(lambda: pair.failed, within_s=5, what="the report")
    assert len(pair.failed) == 1


async def test_an_answer_of_another_kind_is_an_error(make_pair: MakePair) -> None:
    async def answer() -> Message:
        return Drain()

    pair = await make_pair(Office({GetStatus: answer}))
    with pytest.raises(ProtocolError, match="asked GetStatus, answered Drain"):
        await pair.near.ask(GetStatus(), Done)


async def test_what_is_told_arrives_in_order(make_pair: MakePair) -> None:
    pair = await make_pair(Office())
    pair.near.tell(Subscribe("a"))
    pair.near.tell_encoded(encode_message(Subscribe("b")))
    pair.near.tell(Subscribe("c"))
    await wait_until(lambda: len(pair.far_office.told) == 3, within_s=5, what="all told")
    assert pair.far_office.told == [Subscribe("a"), Subscribe("b"), Subscribe("c")]


async def test_a_question_fails_when_the_connection_closes_before_the_answer(make_pair: MakePair) -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        return Done()

    pair = await make_pair(Office({GetStatus: never}))
    asked = asyncio.get_running_loop().create_task(pair.near.ask(GetStatus(), Done))
    await asyncio.sleep(0)
    pair.far.close()
    with pytest.raises(Disconnected, match="far closed the connection"):
        await asyncio.wait_for(asked, timeout=5)
    assert pair.near_office.gone == 1


async def test_nothing_can_be_asked_on_a_closed_connection(make_pair: MakePair) -> None:
    pair = await make_pair(Office())
    pair.near.close()
    assert not pair.near.connected
    pair.near.tell(Subscribe("dropped"))
    with pytest.raises(Disconnected, match="the connection to far is closed"):
        await pair.near.ask(GetStatus(), Done)


async def test_a_question_nobody_waits_for_any_more_does_no_harm(make_pair: MakePair) -> None:
    go_on = asyncio.Event()

    async def slow() -> Message:
        await go_on.wait()
        return Done()

    pair = await make_pair(Office({GetStatus: slow}))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair.near.ask(GetStatus(), Done), timeout=0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair.near.ask(GetStatus(), Done), timeout=0.01)
    go_on.set()
    assert await pair.near.ask(GetStatus(), Done) == Done()


@pytest.mark.parametrize("kind", [TELL, HELLO], ids=["message", "greeting"])
async def test_a_malformed_message_ends_the_connection(make_pair: MakePair, kind: int) -> None:
    pair = await make_pair(Office())
    pair.near._open_connection().send(kind, 0, b"", b"\xc1garbage")
    await wait_until(lambda: pair.far_office.gone, within_s=5, what="the end")
    assert pair.far_office.told == []
