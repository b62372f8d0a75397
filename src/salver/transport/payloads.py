"""Large payloads: a pickle and the buffers that belong to it, laid out one after the other in one block of memory."""

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from salver.schema.errors import ProtocolError
from salver.transport.codec import Pickled, encode, loads
from salver.transport.mappings import LentMemory, Mapping
from salver.transport.segments import Segment, SegmentPool, process_pool
from salver.transport.wire import SharedMemory

ALIGNMENT_BYTES: Final = 64
"""What vector instructions and Arrow like; every buffer begins at a multiple of it."""

PART_SIZE_BYTES: Final = 64 * 1024
"""How much of a payload a PART frame carries: small enough to be copied within the processor's caches."""


class Lendable(Protocol):
    """What can be sent as a large payload.

    Attributes:
        sizes: Of the pickle and of each buffer, in bytes.
    """

    sizes: list[int]

    def place(self) -> SharedMemory | None:
        """Say where it is, but for the loan's number; None if it can only be sent in parts."""

    def parts(self) -> Iterator[bytes]:
        """Yield the whole block for PART frames."""

    def spoil(self) -> None:
        """Somebody may look at its memory for longer than we know."""


class Payload:
    """A pickled value, copied from it when it was made: in shared memory where that can be had, else in parts.

    Its segment goes back to the pool when nobody refers to the payload any more.

    Attributes:
        sizes: Of the pickle and of each buffer, in bytes.
        segment: Where it is; None if it is in parts.
    """

    __slots__ = ("__weakref__", "_parts", "_pool", "_spoiled", "segment", "sizes")

    def __init__(self, pickled: Pickled, pool: SegmentPool) -> None:
        self._pool = pool
        self._spoiled = False
        self.sizes = [sum(map(len, pickled.pieces)), *(each.nbytes for each in pickled.buffers)]
        self.segment: Segment | None = pool.take(end_of(self.sizes))
        self._parts: list[bytes] = []
        if self.segment is None:
            self._parts = list(_in_parts(pickled))
            return
        view = self.segment.view
        position = 0
        for piece in pickled.pieces:
            view[position : position + len(piece)] = piece
            position += len(piece)
        for start, buffer in zip(starts_of(self.sizes)[1:], pickled.buffers, strict=True):
            view[start : start + buffer.nbytes] = buffer

    def place(self) -> SharedMemory | None:
        """Part of Lendable."""
        segment = self.segment
        if segment is None:
            return None
        return SharedMemory(0, segment.number, os.getpid(), segment.file, segment.inode)

    def spoil(self) -> None:
        """Part of Lendable."""
        self._spoiled = True

    def parts(self) -> Iterator[bytes]:
        """Part of Lendable."""
        if self.segment is None:
            yield from self._parts
            return
        size = end_of(self.sizes)
        for start in range(0, size, PART_SIZE_BYTES):
            yield bytes(self.segment.view[start : min(size, start + PART_SIZE_BYTES)])

    def copied(self) -> "Arrival":
        """Return a copy of the payload, for this process to load."""
        return Arrival(memoryview(bytearray().join(self.parts())), self.sizes)

    def __del__(self) -> None:
        segment = getattr(self, "segment", None)
        if segment is not None:
            self._pool.give(segment, spoiled=self._spoiled)


def pack(value: Any) -> bytes | Payload:
    """Pickle a value: into bytes if it is small, else into a payload.

    Raises:
        Exception: Whatever pickling raised.
    """
    pickled = encode(value)
    return pickled if isinstance(pickled, bytes) else Payload(pickled, process_pool())


class Loan(weakref.ref["Borrowed"]):
    """Watches what has a lent payload.

    Attributes:
        spoiled: Somebody whom we cannot ask may still look at the memory.
    """

    __slots__ = ("forks", "kept", "mapping", "number", "since", "spoiled")
    number: int
    mapping: Mapping
    forks: int
    since: float
    kept: bool
    spoiled: bool


class Borrowed:
    """A payload in another process's memory; the loan ends when nothing refers to this any more.

    Attributes:
        loan: What watches it.
    """

    __slots__ = ("__weakref__", "loan", "mapping")

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.loan: Loan

    def memory(self) -> memoryview:
        """Map it; all views of it keep the loan.

        Raises:
            OSError: There is no memory to map it.
        """
        memory: LentMemory = self.mapping.lend()
        memory.borrowed = self  # type: ignore[attr-defined]
        return memoryview(memory).cast("B")


class Arrival:
    """A large payload of another process, which is mapped when it is loaded, and can be passed on before.

    Args:
        block: All of it, or where it is; what is made of it keeps the memory alive.
    """

    __slots__ = ("_block", "sizes")

    def __init__(self, block: memoryview | Borrowed, sizes: list[int]) -> None:
        self._block = block
        self.sizes = sizes

    def load(self, load: Callable[[memoryview, Sequence[memoryview]], Any] = loads) -> Any:
        """Unpickle the value; its large buffers are where they arrived, and may be written to.

        Raises:
            Exception: Whatever unpickling raised.
        """
        block = self._block.memory() if isinstance(self._block, Borrowed) else self._block
        starts = starts_of(self.sizes)
        pickled, *buffers = [block[start : start + size] for start, size in zip(starts, self.sizes, strict=True)]
        return load(pickled, buffers)

    def place(self) -> SharedMemory | None:
        """Part of Lendable."""
        if isinstance(self._block, Borrowed):
            with suppress(OSError):
                return self._block.mapping.pass_on()
        return None

    def parts(self) -> Iterator[bytes]:
        """Part of Lendable."""
        size = end_of(self.sizes)
        for start in range(0, size, PART_SIZE_BYTES):
            part_size = min(size - start, PART_SIZE_BYTES)
            if isinstance(self._block, Borrowed):
                yield self._block.mapping.read(start, part_size)
            else:
                yield bytes(self._block[start : start + part_size])

    def spoil(self) -> None:
        """Part of Lendable."""
        if isinstance(self._block, Borrowed):
            self._block.loan.spoiled = True


def starts_of(sizes: Sequence[int]) -> list[int]:
    """Return where each part of a block begins."""
    starts = []
    position = 0
    for size in sizes:
        starts.append(position)
        position += size + -size % ALIGNMENT_BYTES
    return starts


def end_of(sizes: Sequence[int]) -> int:
    """Return the size of a block in bytes.

    Raises:
        ProtocolError: There is no block of such parts.
    """
    if not sizes or min(sizes) < 0:
        raise ProtocolError(f"a payload cannot have parts of {sizes} bytes")
    return starts_of(sizes)[-1] + sizes[-1]


def _in_parts(pickled: Pickled) -> Iterator[bytes]:
    last = len(pickled.buffers)
    pickle = memoryview(b"".join(pickled.pieces))
    for index, view in enumerate((pickle, *pickled.buffers)):
        for start in range(0, view.nbytes, PART_SIZE_BYTES):
            yield bytes(view[start : start + PART_SIZE_BYTES])
        if index < last and (gap := -view.nbytes % ALIGNMENT_BYTES):
            yield bytes(gap)
