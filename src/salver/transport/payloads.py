"""Large payloads: a pickle and the buffers that belong to it, laid out one after the other in one block of memory."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from salver.schema.errors import ProtocolError
from salver.transport.codec import Pickled, encode, loads
from salver.transport.segments import Segment, SegmentPool, process_pool

ALIGNMENT_BYTES: Final = 64
"""What vector instructions and Arrow like; every buffer begins at a multiple of it."""

PART_SIZE_BYTES: Final = 64 * 1024
"""How much of a payload a PART frame carries: small enough to be copied within the processor's caches."""


class Payload:
    """A pickled value, copied from it when it was made: in shared memory where that can be had, else in parts.

    Its segment goes back to the pool when nobody refers to the payload any more.

    Attributes:
        sizes: Of the pickle and of each buffer, in bytes.
        segment: Where it is; None if it is in parts.
        spoiled: Somebody may look at the segment for longer than we know.
    """

    __slots__ = ("__weakref__", "_parts", "_pool", "segment", "sizes", "spoiled")

    def __init__(self, pickled: Pickled, pool: SegmentPool) -> None:
        self._pool = pool
        self.spoiled = False
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

    def parts(self) -> Iterator[bytes]:
        """Yield the whole block for PART frames."""
        if self.segment is None:
            yield from self._parts
            return
        size = end_of(self.sizes)
        for start in range(0, size, PART_SIZE_BYTES):
            yield bytes(self.segment.view[start : min(size, start + PART_SIZE_BYTES)])

    def copied(self) -> Any:
        """Return a copy of the value."""
        return Arrival(memoryview(bytearray().join(self.parts())), self.sizes).load()

    def __del__(self) -> None:
        segment = getattr(self, "segment", None)
        if segment is not None:
            self._pool.give(segment, spoiled=self.spoiled)


def pack(value: Any) -> bytes | Payload:
    """Pickle a value: into bytes if it is small, else into a payload.

    Raises:
        Exception: Whatever pickling raised.
    """
    pickled = encode(value)
    return pickled if isinstance(pickled, bytes) else Payload(pickled, process_pool())


class Arrival:
    """A large payload of another process.

    Args:
        block: All of it; what is made of it keeps the memory alive.
    """

    __slots__ = ("_block", "sizes")

    def __init__(self, block: memoryview, sizes: Sequence[int]) -> None:
        self._block: memoryview | None = block
        self.sizes = sizes

    def load(self) -> Any:
        """Unpickle the value, once: its large buffers are where they arrived, and may be written to."""
        block, self._block = self._block, None
        assert block is not None, "a payload is loaded once"
        starts = starts_of(self.sizes)
        pickled, *buffers = [block[start : start + size] for start, size in zip(starts, self.sizes, strict=True)]
        return loads(pickled, buffers)


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
