"""Frames on a stream connection: parsed on arrival, written together once per event-loop tick."""

import asyncio
import struct
from typing import Protocol, cast

from salver.schema.errors import ProtocolError
from salver.transport.wire import HEAD, HEAD_SIZE, MAX_FRAME_SIZE_BYTES

_LARGE_SIZE_BYTES = 64 * 1024
"""Bodies of this size are not copied once more to be joined with others."""

_pack = HEAD.pack
_unpack = HEAD.unpack_from


class FrameSink(Protocol):
    """Who owns a connection and acts on its frames."""

    def on_opened(self, connection: "FrameConnection") -> None:
        """The connection can be written to; always called first."""

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Act on a frame; an exception closes the connection."""

    def on_closed(self, error: Exception | None) -> None:
        """The connection is gone; nothing more arrives. The error is None where somebody closed it on purpose."""


class FrameConnection(asyncio.Protocol):
    """One connection that carries frames.

    Args:
        sink: Receives the frames.
        max_frame_size_bytes: Larger frames close the connection before they are buffered.

    Attributes:
        closed: Nothing can be sent any more.
    """

    def __init__(self, sink: FrameSink, *, max_frame_size_bytes: int = MAX_FRAME_SIZE_BYTES) -> None:
        self._sink = sink
        self._max_size = max_frame_size_bytes
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._some_large = False
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = False

    def send(
        self, kind: int, stream: int, header: bytes = b"", body: bytes = b"", flags: int = 0, load: int = 0
    ) -> None:
        """Queue a frame; all frames of this tick leave in one write. A closed connection drops it.

        Raises:
            ProtocolError: The header or the body is larger than a frame can say; nothing was queued.
        """
        if self.closed:
            return
        out = self._out
        header_size = len(header)
        size = header_size + len(body)
        try:
            out.append(_pack(size, stream, kind, flags, header_size, load))
        except struct.error:
            raise ProtocolError(
                f"a frame cannot carry a header of {header_size} and a body of {len(body)} bytes"
            ) from None
        if header:
            out.append(header)
        if body:
            out.append(body)
        if size >= _LARGE_SIZE_BYTES:
            self._some_large = True
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    async def drain(self) -> None:
        """Wait until the other side reads fast enough for more to be sent."""
        if self._flush_scheduled:
            self._flush()
        await self._writable.wait()

    @property
    def congested(self) -> bool:
        """Say whether the other side reads too slowly for more to be sent now."""
        return not self._writable.is_set()

    def close(self) -> None:
        """Write what is queued, then close."""
        if self._transport is not None and not self.closed:
            self._flush()
            self.closed = True
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        self._flush_scheduled = False
        out = self._out
        if out and self._transport is not None and not self.closed:
            if self._some_large:
                self._write_in_turn(self._transport, out)
            else:
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def _write_in_turn(self, transport: asyncio.Transport, out: list[bytes]) -> None:
        """Write large bodies by themselves, and what is between them together."""
        self._some_large = False
        small: list[bytes] = []
        for each in out:
            if len(each) < _LARGE_SIZE_BYTES:
                small.append(each)
                continue
            transport.write(b"".join(small))
            transport.write(each)
            small.clear()
        if small:
            transport.write(b"".join(small))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; part of asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._sink.on_opened(self)

    def pause_writing(self) -> None:
        """The write buffer is full; part of asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The write buffer has emptied; part of asyncio.Protocol."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the sink; part of asyncio.Protocol."""
        self.closed = True
        self._out.clear()
        self._parts.clear()
        self._writable.set()
        self._sink.on_closed(exc or self._error)

    def data_received(self, data: bytes) -> None:
        """Cut frames out of what arrived; part of asyncio.Protocol.

        An error ends this connection and no other: a ProtocolError is the other side's fault, all others are reported.
        """
        parts = self._parts
        if parts:
            parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(parts)
            parts.clear()
        size = len(data)
        position = 0
        need = HEAD_SIZE
        max_size = self._max_size
        on_frame = self._sink.on_frame
        try:
            while size - position >= HEAD_SIZE:
                length, stream, kind, flags, header_size, load = _unpack(data, position)
                start = position + HEAD_SIZE
                end = start + length
                if end > size or header_size > length or length > max_size:
                    self._check_size(length, header_size)
                    need = HEAD_SIZE + length
                    break
                middle = start + header_size
                on_frame(kind, flags, stream, load, data[start:middle], data[middle:end])
                position = end
        except Exception as error:  # noqa: BLE001 - an error of one connection's sink must not reach the event loop
            self._break_off(error)
            return
        if position < size:
            parts.append(data[position:] if position else data)
            self._have = size - position
            self._need = need

    def _check_size(self, length: int, header_size: int) -> None:
        if length > self._max_size or header_size > length:
            raise ProtocolError(f"a frame of {length} bytes with a header of {header_size} is not allowed here")

    def _break_off(self, error: Exception) -> None:
        self._error = error
        if not isinstance(error, ProtocolError):
            self._loop.call_exception_handler({"message": "a connection broke", "exception": error, "protocol": self})
        self.abort()
