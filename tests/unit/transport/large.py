"""Two ends of a connection that carries large payloads, in one process, with a pool of their own."""

import asyncio
import os
from pathlib import Path
from typing import Any

from salver.transport.codec import Pickled, encode
from salver.transport.framing import FrameConnection
from salver.transport.large_payloads import LargePayloads
from salver.transport.memory import MemoryNetwork, MemoryTransport
from salver.transport.payloads import Arrival, Payload
from salver.transport.segments import SegmentPool
from salver.transport.wire import CALL, LARGE, PART


class End:
    """One end; it keeps what arrives.

    Attributes:
        kinds: The kinds of all frames that have come.
    """

    def __init__(self, pool: SegmentPool) -> None:
        self._pool = pool
        self.connection: FrameConnection
        self.large: LargePayloads
        self.arrived: asyncio.Queue[tuple[int, Arrival]] = asyncio.Queue()
        self.kinds: list[int] = []
        self.wanted = True
        self.error: Exception | None = None

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection
        self.large = LargePayloads(connection, lambda stream: self.wanted, self._pool)

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.kinds.append(kind)
        if kind >= PART:
            self.large.on_frame(kind, flags, stream, header, body)
        elif flags & LARGE and self.large.arrive(stream, flags, body):
            self.arrived.put_nowait((stream, self.large.take(stream)))

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.error = error
        self.large.close()

    def send(self, value: Any, stream: int = 1) -> None:
        """Send a large value."""
        self.large.send(CALL, stream, b"", pack_in(self._pool, value))

    async def next(self) -> Any:
        """Return the next value that arrives."""
        _, arrival = await asyncio.wait_for(self.arrived.get(), timeout=5)
        return arrival.load()


class Pair:
    """Both ends, and the transport between them."""

    def __init__(self, pool: SegmentPool, near: End, far: End, transport: MemoryTransport) -> None:
        self.pool = pool
        self.near = near
        self.far = far
        self.transport = transport

    async def close(self) -> None:
        """Break the connection, and drop what has arrived."""
        self.transport.cut()
        for end in (self.near, self.far):
            while not end.arrived.empty():
                end.arrived.get_nowait()
        await settle()


async def connect(pool: SegmentPool | None = None) -> Pair:
    """Return two connected ends; their pool is that of one process."""
    network = MemoryNetwork()
    pool = pool or SegmentPool()
    near, far = End(pool), End(pool)
    await network.listen("there", lambda: far)
    await network.dial("there", near)
    return Pair(pool, near, far, network.ends[0])


def pack_in(pool: SegmentPool, value: Any) -> Payload:
    """Pack a value that is large."""
    pickled = encode(value)
    assert isinstance(pickled, Pickled)
    return Payload(pickled, pool)


async def settle() -> None:
    """Let everything happen that can without time passing and without a garbage collection."""
    for _ in range(50):
        await asyncio.sleep(0)


def files_of_segments(pid: int | str = "self") -> list[str]:
    """Return the descriptors of segments that a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(each)
        except OSError:
            continue
        if "memfd:salver" in target:
            found.append(f"{each.name} {target}")
    return found


def maps_of_segments(pid: int | str = "self") -> list[str]:
    """Return the mappings of segments that a process has."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:salver" in line]
