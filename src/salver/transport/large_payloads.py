"""Large payloads on one connection: lent from shared memory, or sent in parts; each end has one of these.

Whoever is sent a loan gives it back once, when nothing refers to the memory any more or the payload was not wanted. A
connection that breaks before that leaves its loans' segments spoiled: the other side may still look at them.
"""

import asyncio
import mmap
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from struct import Struct
from typing import NamedTuple

import msgspec

from salver.schema.errors import ProtocolError
from salver.transport.framing import FrameConnection
from salver.transport.mappings import Mapping
from salver.transport.payloads import Arrival, Borrowed, Lendable, Loan, end_of
from salver.transport.segments import SegmentPool, process_pool
from salver.transport.wire import (
    AGAIN,
    ATTACHMENT,
    FORGET,
    PART,
    PARTS,
    RELEASE,
    SHARED,
    SPOILED,
    UNREADABLE,
    PayloadHead,
    SharedMemory,
)

KEPT_S = 10.0
"""Who has a loan for so long gives it back, spoiled, and keeps the memory: its sender need not remember it."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PayloadHead).decode
_NUMBER = Struct("<Q")


class _Sent(NamedTuple):
    """A frame whose payload was lent; all that is needed to send it again."""

    kind: int
    stream: int
    header: bytes
    payload: Lendable
    flags: int
    load: int


class _Forks:
    """How often this process has forked: a child that still has what was lent to us does not say when it is done."""

    count = 0


def _count_fork() -> None:
    _Forks.count += 1


os.register_at_fork(before=_count_fork)


class LargePayloads:
    """The large payloads of one connection.

    Args:
        wanted: Says whether a frame that the other side could not read is to be sent again on its stream.
    """

    def __init__(
        self, connection: FrameConnection, wanted: Callable[[int], bool], pool: SegmentPool | None = None
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._pool = pool or process_pool()
        self._loop = asyncio.get_running_loop()
        self._process_id = os.getpid()
        self._closed = False
        # As a lender.
        self._lends = True
        self._numbers = count(1)
        self._lent: dict[int, _Sent] = {}
        self._known_there: set[int] = set()
        # As a borrower.
        self._arriving: dict[int, tuple[mmap.mmap, int]] = {}
        self._arrived: dict[int, Arrival] = {}
        self._borrowed: dict[int, Loan] = {}
        self._ended: deque[Loan] = deque()
        self._used: list[Mapping] = []
        self._mappings: dict[int, Mapping] = {}
        self._pool.join(self)

    @property
    def num_lent(self) -> int:
        """Return how many loans have not come back."""
        return len(self._lent)

    def send(self, kind: int, stream: int, header: bytes, payload: Lendable, flags: int = 0, load: int = 0) -> None:
        """Send a frame with a large payload."""
        if self._connection.closed or self._closed:
            return
        sent = _Sent(kind, stream, header, payload, flags, load)
        place = payload.place() if self._lends else None
        if place is None:
            self._send_parts(sent)
            return
        number = next(self._numbers)
        body = _encode(PayloadHead(payload.sizes, msgspec.structs.replace(place, loan=number)))
        self._lent[number] = sent
        if not place.passed_on:
            self._known_there.add(place.segment)
        self._connection.send(kind, stream, header, body, flags | SHARED, load)

    def on_frame(self, kind: int, flags: int, stream: int, header: bytes, body: bytes) -> None:
        """Act on a PART, RELEASE, FORGET or UNREADABLE frame."""
        if kind == PART:
            self._add_part(stream, header, body)
        elif kind == RELEASE:
            sent = self._lent.pop(_number(header), None)
            if sent is not None and flags & SPOILED:
                sent.payload.spoil()
        elif kind == FORGET:
            self._mappings.pop(_number(header), None)
        elif kind == UNREADABLE:
            self._lends = False
            sent = self._lent.pop(_number(header), None)
            if sent is not None and (sent.kind == ATTACHMENT or self._wanted(sent.stream)):
                # What is attached may come after the answer.
                self._send_parts(sent._replace(flags=sent.flags | AGAIN))

    def arrive(self, stream: int, flags: int, body: bytes) -> bool:
        """Receive a frame's payload, for `take`; False: it could not be read, and the frame will come again."""
        try:
            head = _decode(body)
            size = end_of(head.sizes)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a payload's head is malformed: {error}") from None
        block: memoryview | Borrowed
        if flags & PARTS:
            block = memoryview(self._take_parts(stream, size))
        elif head.shared is None:
            raise ProtocolError("a shared payload does not say where it is")
        else:
            try:
                block = self._borrow(head.shared, size)
            except OSError:
                self._connection.send(UNREADABLE, 0, _NUMBER.pack(head.shared.loan))
                return False
        self._arrived[stream] = Arrival(block, head.sizes)
        return True

    def take(self, stream: int) -> Arrival:
        """Return the payload that has arrived on a stream; a shared one that is dropped is given back."""
        return self._arrived.pop(stream)

    def give_back(self) -> None:
        """Tell the other side of all loans that have ended."""
        while self._ended:
            loan = self._ended.popleft()
            self._borrowed.pop(loan.number, None)
            if self._closed or loan.kept:
                continue
            spoiled = loan.spoiled or loan.forks != _Forks.count
            if not spoiled and not loan.mapping.is_passed_on:
                self._used.append(loan.mapping)
            self._connection.send(RELEASE, 0, _NUMBER.pack(loan.number), b"", SPOILED if spoiled else 0)
        if self._used:
            # After what is written now: to look takes a millisecond for 100 MB, to unmap several.
            self._loop.call_soon(self._keep_untouched)

    def sweep(self, now: float) -> None:
        """Give back what was lent long ago and is still in use; part of SegmentReader."""
        for loan in tuple(self._borrowed.values()):
            if not loan.kept and now - loan.since >= KEPT_S:
                loan.kept = True
                self._connection.send(RELEASE, 0, _NUMBER.pack(loan.number), b"", SPOILED)

    def forget(self, number: int) -> None:
        """Tell the other side that a segment will not be used again; part of SegmentReader, from any thread."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._send_forget, number)

    def close(self) -> None:
        """The connection is closed. What was lent to us stays where it is mapped."""
        self._closed = True
        for sent in self._lent.values():
            sent.payload.spoil()
        for each in (self._lent, self._known_there, self._arriving, self._arrived, self._borrowed, self._mappings):
            each.clear()
        self._ended.clear()
        self._pool.leave(self)

    def _keep_untouched(self) -> None:
        used, self._used = self._used, []
        for each in used:
            if not self._closed and each.is_untouched():
                each.rest()
                self._mappings[each.segment] = each

    def _send_forget(self, number: int) -> None:
        if number in self._known_there and not self._closed:
            self._known_there.discard(number)
            self._connection.send(FORGET, 0, _NUMBER.pack(number))

    def _send_parts(self, sent: _Sent) -> None:
        header = _NUMBER.pack(end_of(sent.payload.sizes))
        for part in sent.payload.parts():
            self._connection.send(PART, sent.stream, header, part)
            header = b""
        body = _encode(PayloadHead(sent.payload.sizes))
        self._connection.send(sent.kind, sent.stream, sent.header, body, sent.flags | PARTS, sent.load)

    def _add_part(self, stream: int, header: bytes, body: bytes) -> None:
        if header:
            try:
                block, filled = _new_block(_number(header)), 0
            except (OSError, ValueError, OverflowError) as error:
                raise ProtocolError(f"a payload of {_number(header)} bytes cannot be taken: {error}") from None
        elif stream in self._arriving:
            block, filled = self._arriving[stream]
        else:
            raise ProtocolError("a part of a payload comes without its beginning")
        end = filled + len(body)
        if end > len(block):
            raise ProtocolError("a payload is larger than its beginning said")
        block[filled:end] = body
        self._arriving[stream] = block, end

    def _take_parts(self, stream: int, size: int) -> mmap.mmap:
        block, filled = self._arriving.pop(stream, (None, 0))
        if block is None or filled != size or len(block) != size:
            raise ProtocolError(f"{filled} bytes of a payload of {size} have come")
        return block

    def _borrow(self, where: SharedMemory, size: int) -> Borrowed:
        # Taken out while it is in use: two values must not share pages that both may write to.
        mapping = None if where.passed_on else self._mappings.pop(where.segment, None)
        if mapping is None or mapping.size_bytes < size:
            mapping = Mapping(where, size)
        borrowed = Borrowed(mapping)
        loan = borrowed.loan = Loan(borrowed, partial(_end_loan, self))
        loan.number, loan.mapping, loan.forks = where.loan, mapping, _Forks.count
        loan.since, loan.kept, loan.spoiled = self._loop.time(), False, False
        self._borrowed[where.loan] = loan
        return borrowed

    def _loan_ended(self, loan: Loan) -> None:
        # A finalizer: any thread, at any moment; and a forked child's must not speak for its parent.
        if self._closed:
            return
        self._ended.append(loan)
        if os.getpid() == self._process_id:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.give_back)


def _new_block(size_bytes: int) -> mmap.mmap:
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # To be given pages one by one takes longer than to fill them.
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _end_loan(payloads: LargePayloads, loan: Loan) -> None:
    payloads._loan_ended(loan)


def _number(header: bytes) -> int:
    if len(header) != _NUMBER.size:
        raise ProtocolError(f"a header of {len(header)} bytes does not hold a number")
    return int(_NUMBER.unpack(header)[0])
