"""A caller's side of one connection: numbers, counts, and what a broken connection means for each request."""

from itertools import count
from typing import Any, cast

import pytest

from salver.handle import channel as channel_module
from salver.handle.channel import Channel
from salver.handle.outgoing import Outgoing
from salver.schema.errors import Disconnected, ProtocolError
from salver.schema.topics import ReplicaEntry
from salver.transport.framing import FrameConnection, FrameSink
from salver.transport.wire import CANCEL, CHUNK, END, ERROR, HELLO, MORE, REJECT, RESPONSE, RESULT, ROOM, WAIT
from tests.unit.handle.doubles import Dialling, Replica


class Connection:
    """Remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.closed = False

    def send(self, kind: int, stream: int, *_: Any, **__: Any) -> None:
        """Part of FrameConnection."""
        self.sent.append((kind, stream))

    def close(self) -> None:
        """Part of FrameConnection."""
        self.closed = True


class Owner:
    """Remembers what the channel told it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.returned: list[Outgoing] = []
        self.pays = True

    def on_freed(self, channel: Channel) -> None:
        """Part of ChannelOwner."""
        self.told.append("freed")

    def on_room(self, channel: Channel) -> None:
        """Part of ChannelOwner."""
        self.told.append("room")

    def on_rejected(self, outgoing: Outgoing) -> None:
        """Part of ChannelOwner."""
        self.told.append("rejected")
        self.returned.append(outgoing)

    def on_full(self) -> None:
        """Part of ChannelOwner."""
        self.told.append("full")

    def may_retry(self) -> bool:
        """Part of ChannelOwner."""
        return self.pays

    def on_returned(self, outgoing: Outgoing) -> None:
        """Part of ChannelOwner."""
        self.told.append("returned")
        self.returned.append(outgoing)

    def on_channel_closed(self, channel: Channel) -> None:
        """Part of ChannelOwner."""
        self.told.append("closed")


class Message(Outgoing):
    """A request whose frames are remembered."""

    def __init__(self, *, idempotent: bool = False) -> None:
        super().__init__()
        self.idempotent = idempotent
        self.frames: list[int] = []
        self.ended: list[str] = []

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Part of Outgoing."""
        channel.connection.send(99, stream)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Part of Outgoing."""
        self.frames.append(kind)

    def may_repeat(self) -> bool:
        """Part of Outgoing."""
        return self.idempotent

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self.ended.append(f"lost {replica}")

    def on_refused(self, error: Exception) -> None:
        """Part of Outgoing."""
        self.ended.append(f"refused {error}")


class Rig:
    """A channel, its owner and its connection."""

    def __init__(self, limit: int = 5) -> None:
        self.entry: ReplicaEntry = Replica("a", limit).entry
        self.owner = Owner()
        self.tasks = Dialling()
        self.connection = Connection()
        self.refuse = False
        self.channel = Channel(self.entry, self.owner, self.tasks, b"", cast("Any", self.dial))

    async def dial(self, address: str, sink: FrameSink) -> Any:
        """Part of a transport."""
        assert address == "a"
        if self.refuse:
            raise Disconnected("nobody there")
        sink.on_opened(cast("FrameConnection", self.connection))

    def answer(self, kind: int, stream: int, *, flags: int = 0, load: int = 0) -> None:
        """Let a frame arrive."""
        self.channel.on_frame(kind, flags, stream, load, b"", b"")


def test_the_connection_opens_at_the_first_request_and_greets_first() -> None:
    rig = Rig()
    assert rig.connection.sent == []
    rig.channel.send(Message())
    assert rig.connection.sent == [(HELLO, 0), (99, 1)]
    rig.channel.send(Message())
    assert rig.connection.sent[2:] == [(99, 2)]


def test_what_is_sent_while_dialling_leaves_in_order_and_without_what_was_cancelled() -> None:
    rig = Rig()
    rig.tasks.at_once = False
    first, second, third = Message(), Message(), Message()
    for message in (first, second, third):
        rig.channel.send(message)
    assert len(rig.tasks.pending) == 1
    rig.channel.cancel(second)
    rig.tasks.go_on()
    assert rig.connection.sent == [(HELLO, 0), (99, 1), (99, 3)]


def test_there_is_room_below_the_limit() -> None:
    rig = Rig(limit=2)
    rig.channel.send(Message())
    assert rig.channel.has_room
    rig.channel.send(Message())
    assert not rig.channel.has_room
    rig.answer(RESULT, 1)
    assert rig.channel.has_room


@pytest.mark.parametrize("kind", [RESULT, ERROR, END, RESPONSE])
def test_the_last_frame_frees_the_place(kind: int) -> None:
    rig = Rig()
    message = Message()
    rig.channel.send(message)
    rig.answer(kind, 1)
    assert (message.frames, rig.owner.told, rig.channel.in_flight) == ([kind], ["freed"], {})


def test_a_streamed_answer_keeps_the_place_until_its_end() -> None:
    rig = Rig()
    message = Message()
    rig.channel.send(message)
    rig.answer(RESPONSE, 1, flags=MORE)
    rig.answer(CHUNK, 1)
    assert rig.owner.told == []
    rig.answer(END, 1)
    assert (message.frames, rig.owner.told) == ([RESPONSE, CHUNK, END], ["freed"])


def test_the_load_of_others_is_what_the_replica_says_without_our_own() -> None:
    rig = Rig()
    for _ in range(3):
        rig.channel.send(Message())
    rig.answer(RESULT, 1, load=6)
    assert rig.channel.others == 4
    rig.answer(RESULT, 2, load=0)
    assert rig.channel.others == 0


def test_a_refusal_returns_the_request_and_blocks_the_replica() -> None:
    rig = Rig()
    message = Message()
    rig.channel.send(message)
    rig.answer(REJECT, 1, load=5)
    assert (rig.owner.told, rig.owner.returned, message.attempts) == (["rejected"], [message], 0)
    assert not rig.channel.has_room


def test_room_is_told_to_the_owner() -> None:
    rig = Rig()
    rig.channel.send(Message())
    rig.answer(ROOM, 0)
    assert rig.owner.told == ["room"]


def test_room_is_asked_for_on_an_open_connection_only() -> None:
    rig = Rig()
    assert not rig.channel.ask_for_room()
    assert rig.channel.has_room
    rig.channel.send(Message())
    assert rig.channel.ask_for_room()
    assert rig.connection.sent[2:] == [(WAIT, 0)]
    assert not rig.channel.has_room
    rig.answer(REJECT, 0)
    assert rig.owner.told == ["full"]


def test_a_cancelled_request_is_cancelled_there_and_its_late_frames_are_dropped() -> None:
    rig = Rig()
    message = Message()
    rig.channel.send(message)
    rig.channel.cancel(message)
    rig.channel.cancel(message)
    rig.answer(RESULT, 1)
    assert rig.connection.sent[2:] == [(CANCEL, 1)]
    assert (message.frames, rig.owner.told) == ([], ["freed"])


def test_numbers_come_round_without_zero_and_without_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(limit=10)
    long = Message()
    rig.channel.send(long)
    rig.channel._streams = count(channel_module._MAX_STREAM)
    for _ in range(3):
        rig.channel.send(Message())
    assert [stream for _, stream in rig.connection.sent[1:]] == [1, 0xFFFFFFFF, 2, 3]
    assert rig.channel.in_flight[1] is long


def test_a_dead_replica_is_no_failed_attempt_for_what_never_left() -> None:
    rig = Rig()
    rig.refuse = True
    message = Message()
    rig.channel.send(message)
    assert rig.owner.told == ["closed", "returned"]
    assert (message.attempts, message.ended) == (0, [])
    assert not rig.channel.has_room


def test_a_broken_connection_returns_what_may_be_repeated_and_loses_the_rest() -> None:
    rig = Rig()
    once, again = Message(), Message(idempotent=True)
    rig.channel.send(once)
    rig.channel.send(again)
    rig.channel.on_closed(None)
    assert rig.owner.told == ["closed", "returned"]
    assert (rig.owner.returned, again.attempts) == ([again], 1)
    assert once.ended == ["lost shop#model#a"]


def test_what_may_be_repeated_is_lost_when_nothing_pays_for_it() -> None:
    rig = Rig()
    rig.owner.pays = False
    message = Message(idempotent=True)
    rig.channel.send(message)
    rig.channel.on_closed(None)
    assert (rig.owner.returned, message.ended) == ([], ["lost shop#model#a"])


def test_what_was_tried_three_times_is_lost() -> None:
    rig = Rig()
    message = Message(idempotent=True)
    message.attempts = 2
    rig.channel.send(message)
    rig.channel.on_closed(None)
    assert message.ended == ["lost shop#model#a"]


def test_a_request_that_is_too_large_is_refused_and_takes_no_place() -> None:
    class Large(Message):
        def write(self, channel: Channel, stream: int, flags: int) -> None:
            """Part of Outgoing."""
            raise ProtocolError("too large")

    rig = Rig()
    message = Large()
    rig.channel.send(message)
    assert (message.ended, rig.channel.in_flight) == (["refused too large"], {})


def test_closing_while_dialling_closes_once_connected_and_returns_what_never_left() -> None:
    rig = Rig()
    rig.tasks.at_once = False
    message = Message()
    rig.channel.send(message)
    rig.channel.close()
    rig.tasks.go_on()
    assert (rig.connection.closed, rig.connection.sent) == (True, [])
    rig.channel.on_closed(None)
    assert rig.owner.returned == [message]
