"""The caller's side of its connection to one replica."""

from itertools import count
from typing import Protocol

from salver.handle.outgoing import MAX_ATTEMPTS, Outgoing
from salver.lib.tasks import Tasks
from salver.schema.errors import Disconnected, ProtocolError
from salver.schema.topics import ReplicaEntry
from salver.transport.framing import FrameConnection
from salver.transport.large_payloads import LargePayloads
from salver.transport.sockets import Dial, dial
from salver.transport.wire import (
    CANCEL,
    CHUNK,
    END,
    ERROR,
    HELD,
    HELLO,
    LARGE,
    MORE,
    PART,
    PASS,
    REJECT,
    RESERVED,
    RESPONSE,
    RESULT,
    ROOM,
    WAIT,
)

_LAST_KINDS = frozenset({RESULT, ERROR, END})
_LARGE_KINDS = frozenset({RESULT, CHUNK})
_MAX_STREAM = 0xFFFFFFFF


class ChannelOwner(Protocol):
    """Who chooses among channels."""

    def on_freed(self, channel: "Channel") -> None:
        """A request of ours is finished."""

    def on_room(self, channel: "Channel") -> None:
        """The replica holds a slot for us; it must be used or passed on."""

    def on_rejected(self, outgoing: Outgoing) -> None:
        """The replica is full and did not take a request, but will call us back."""

    def on_full(self) -> None:
        """A replica that was asked for room has none, but will call us back."""

    def on_returned(self, outgoing: Outgoing) -> None:
        """The replica is gone; a request that it did not take, or that may be repeated, must go elsewhere."""

    def may_retry(self) -> bool:
        """Say whether one more request that a replica lost may be sent again; asking counts."""

    def on_channel_closed(self, channel: "Channel") -> None:
        """The replica is gone."""


class Channel:
    """Requests of this process to one replica; the connection is opened at the first.

    Attributes:
        in_flight: What was sent and is not answered, by stream.
        others: How many requests of other callers the replica had when it answered last.
        blocked: We stand in line at the replica; it calls us when it has room.

    Args:
        dial: Opens the connection.
    """

    def __init__(
        self, entry: ReplicaEntry, owner: ChannelOwner, tasks: Tasks, greeting: bytes, dial: Dial = dial
    ) -> None:
        self.entry = entry
        self.in_flight: dict[int, Outgoing] = {}
        self.others = 0
        self.blocked = False
        self.limit = entry.max_ongoing_requests
        self.closed = False
        self._owner = owner
        self._tasks = tasks
        self._greeting = greeting
        self._open = dial
        self._streams = count(1)
        self._connection: FrameConnection | None = None
        self._dialling = False
        self._unsent: list[tuple[Outgoing, int]] = []
        self._large: LargePayloads | None = None

    @property
    def name(self) -> str:
        """Return the replica's name for messages."""
        return str(self.entry.replica)

    @property
    def has_room(self) -> bool:
        """Say whether a request may be sent now, as far as we know."""
        return len(self.in_flight) < self.limit and not self.blocked and not self.closed

    def send(self, outgoing: Outgoing, flags: int = 0) -> None:
        """Give the replica a request."""
        in_flight = self.in_flight
        stream = next(self._streams) & _MAX_STREAM
        # The numbers come round after a day of heavy traffic; 0 is no request's, and a long stream still has its own.
        while not stream or stream in in_flight:
            stream = next(self._streams) & _MAX_STREAM
        outgoing.channel = self
        outgoing.stream = stream
        outgoing.attempts += 1
        in_flight[stream] = outgoing
        if self._connection is not None:
            self._write(outgoing, flags)
            return
        self._unsent.append((outgoing, flags))
        if not self._dialling:
            self._dialling = True
            self._tasks.start(self._dial(), name=f"dial {self.name}")

    @property
    def connection(self) -> FrameConnection:
        """Return the open connection; only for `Outgoing.write`."""
        assert self._connection is not None
        return self._connection

    @property
    def large_payloads(self) -> LargePayloads:
        """Return what sends and receives large payloads on the open connection."""
        if self._large is None:
            self._large = LargePayloads(self.connection, self.in_flight.__contains__)
        return self._large

    def cancel(self, outgoing: Outgoing) -> None:
        """Stop a request wherever it is; its late frames are dropped."""
        if self.in_flight.pop(outgoing.stream, None) is None:
            return
        if self._connection is not None:
            self._connection.send(CANCEL, outgoing.stream)
        self._owner.on_freed(self)
        self._close_if_done()

    def keep(self, outgoing: Outgoing) -> None:
        """Go on handing it frames: it is answered, but for large items that have to come again."""
        self.in_flight[outgoing.stream] = outgoing

    def forget(self, outgoing: Outgoing) -> None:
        """Hand it no more frames."""
        del self.in_flight[outgoing.stream]
        self._owner.on_freed(self)
        self._close_if_done()

    def pass_on(self) -> None:
        """Hand back a slot that was held for us."""
        self.blocked = False
        self.connection.send(PASS, 0)

    def use_held(self, outgoing: Outgoing, *, more_waiting: bool) -> None:
        """Take the slot that was held for us, and stand in line again if more wait."""
        self.send(outgoing, HELD)
        self.blocked = more_waiting
        if more_waiting:
            self.connection.send(WAIT, 0)

    def use_reserved(self, reservation: Outgoing, outgoing: Outgoing) -> None:
        """Send a request in the slot that a reservation holds."""
        outgoing.channel = self
        outgoing.stream = reservation.stream
        outgoing.attempts += 1
        self.in_flight[reservation.stream] = outgoing
        self._write(outgoing, HELD)

    def give_back(self, reservation: Outgoing) -> None:
        """Hand back the slot that a reservation holds."""
        if self.in_flight.pop(reservation.stream, None) is not None:
            self.connection.send(PASS, 0)
            self._owner.on_freed(self)
            self._close_if_done()

    def ask_for_room(self) -> bool:
        """Stand in line without sending a request; say whether there is a connection to ask on."""
        if self._connection is None:
            return False
        self.blocked = True
        self._connection.send(WAIT, 0)
        return True

    def retire(self) -> None:
        """Take no more requests; the connection closes when the last answer is in."""
        self.limit = 0
        self._close_if_done()

    def close(self) -> None:
        """Close the connection; what is in flight is lost."""
        self.closed = True
        if self._connection is not None:
            self._connection.close()

    async def _dial(self) -> None:
        try:
            await self._open(self.entry.address, self)
        except Disconnected as error:
            self.on_closed(error)

    def _write(self, outgoing: Outgoing, flags: int) -> None:
        try:
            outgoing.write(self, outgoing.stream, flags)
        except ProtocolError as error:
            del self.in_flight[outgoing.stream]
            if flags & HELD:
                self.connection.send(PASS, 0)
            outgoing.abandoned = True
            outgoing.on_refused(error)
            self._owner.on_freed(self)

    def _close_if_done(self) -> None:
        if not self.limit and not self.in_flight:
            self.close()

    def _on_stray(self, kind: int, stream: int) -> None:
        """Act on a frame of the connection itself, or of a request that was cancelled."""
        if kind == ROOM:
            self._owner.on_room(self)
        elif kind == REJECT and not stream:
            self._owner.on_full()
        elif kind == RESERVED:
            # Nobody waits for it any more.
            self.connection.send(PASS, 0)

    def _on_rejected(self, outgoing: Outgoing) -> None:
        del self.in_flight[outgoing.stream]
        self.blocked = True
        # A refusal is no failed attempt: user code never saw the request.
        outgoing.attempts -= 1
        self._owner.on_rejected(outgoing)
        self._close_if_done()

    def _on_large_frame(self, kind: int, flags: int, stream: int, header: bytes, body: bytes) -> bool:
        """Take a frame's part in large payloads; say whether it goes on to the request it answers."""
        if kind >= PART:
            self.large_payloads.on_frame(kind, flags, stream, header, body)
            return False
        if kind == CHUNK and stream in self.in_flight:
            return True
        if kind in _LARGE_KINDS:
            if not self.large_payloads.arrive(stream, flags, body):
                return False
            if stream not in self.in_flight:
                self.large_payloads.take(stream)
        return True

    # FrameSink

    def on_opened(self, connection: FrameConnection) -> None:
        """Greet, and send what waited for the connection; part of FrameSink."""
        self._connection = connection
        if self.closed:
            connection.close()
            return
        connection.send(HELLO, 0, body=self._greeting)
        unsent, self._unsent = self._unsent, []
        for outgoing, flags in unsent:
            if self.in_flight.get(outgoing.stream) is outgoing:
                self._write(outgoing, flags)
        self._close_if_done()

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Hand a frame to the request it answers; part of FrameSink."""
        if (kind >= PART or flags & LARGE) and not self._on_large_frame(kind, flags, stream, header, body):
            return
        outgoing = self.in_flight.get(stream)
        if outgoing is None:
            self._on_stray(kind, stream)
            return
        if kind == REJECT:
            self._on_rejected(outgoing)
            return
        last = kind in _LAST_KINDS or (kind == RESPONSE and not flags & MORE)
        if last:
            del self.in_flight[stream]
            others = load - len(self.in_flight)
            self.others = others if others > 0 else 0
        outgoing.on_frame(kind, flags, load, header, body)
        if last:
            self._owner.on_freed(self)
            if not self.limit:
                self._close_if_done()

    def on_closed(self, error: Exception | None) -> None:
        """Find out what becomes of each request; part of FrameSink."""
        self.closed = True
        self._connection = None
        lost, self.in_flight = self.in_flight, {}
        if self._large is not None:
            self._large.close()
        unsent, self._unsent = self._unsent, []
        self._owner.on_channel_closed(self)
        for outgoing, _ in unsent:
            # No replica has seen it: no failed attempt.
            if lost.pop(outgoing.stream, None) is not None:
                outgoing.attempts -= 1
                self._owner.on_returned(outgoing)
        for outgoing in lost.values():
            if outgoing.attempts < MAX_ATTEMPTS and outgoing.may_repeat() and self._owner.may_retry():
                self._owner.on_returned(outgoing)
            else:
                outgoing.on_lost(self.name)
