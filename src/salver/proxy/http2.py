"""HTTP/2 for one client: its streams are exchanges like those of HTTP/1.1. The protocol itself is h2's."""

import asyncio
import logging
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import GoAwayFrame

from salver.proxy.client_connection import ClientConnection
from salver.proxy.dispatch import Caller
from salver.proxy.http2_stream import Http2Stream
from salver.proxy.limits import (
    MAX_CONNECTION_WINDOW_SIZE_BYTES,
    MAX_HEADERS_SIZE_BYTES,
    MAX_RESETS_PER_SWEEP,
    MAX_STREAMS,
    UPLOAD_WINDOW_SIZE_BYTES,
)
from salver.proxy.site import Site
from salver.schema.outcomes import Outcome
from salver.telemetry.logs import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

_CONFIG = h2.config.H2Configuration(client_side=False, header_encoding=None)
_SETTINGS = {
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: UPLOAD_WINDOW_SIZE_BYTES,
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS_SIZE_BYTES,
}
_DEFAULT_WINDOW_SIZE_BYTES = 65535


class Http2Connection(ClientConnection):
    """One client's connection.

    Args:
        site: What it shares with others.
        loop: Tells the time, and calls back.

    Attributes:
        h2: The state of the protocol.
        congested: The client reads too slowly for more to be written.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.site = site
        self.h2 = h2.connection.H2Connection(_CONFIG)
        self.caller: Caller
        self.congested = False
        self._loop = loop
        self._streams: dict[int, Http2Stream] = {}
        self._last_stream = 0
        self._lost = False
        self._leaving = False
        self._flush_scheduled = False
        self._resets = 0
        self._idle_since = loop.time()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.caller = Caller((peer[0], peer[1]) if isinstance(peer, tuple) else None, self.site.scheme)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(MAX_CONNECTION_WINDOW_SIZE_BYTES - _DEFAULT_WINDOW_SIZE_BYTES)
        self.flush()
        self.site.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._end()
        self.site.closed(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self._lost:
            return
        if self.resting:
            self.site.woke(self)
        try:
            for event in self.h2.receive_data(data):
                self._on_event(event)
            for stream in list(self._streams.values()):
                stream.look_at_arrival()
        except h2.exceptions.ProtocolError:
            # What is wrong has been put into a GOAWAY frame.
            self._write()
            self._end()
            self._transport.close()
            return
        except Exception:
            logger.exception("an HTTP/2 frame could not be handled")
            self._end()
            self._transport.abort()
            return
        self.flush()

    def pause_writing(self) -> None:
        """The client reads slowly; part of asyncio.Protocol."""
        self.congested = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again; part of asyncio.Protocol."""
        self.congested = False
        if self._lost:
            return
        self._transport.resume_reading()
        self._pump()

    # For streams

    def time(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def flush(self) -> None:
        """Write what h2 has made; all of a tick leaves in one write."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._write)

    def forget(self, stream_id: int) -> None:
        """A stream is over."""
        if (stream := self._streams.pop(stream_id, None)) is not None:
            self.site.deadlines.forget(stream)
        if self._streams:
            return
        self._idle_since = self._loop.time()
        if self._leaving:
            self._write()
            self._transport.close()

    # The proxy's sweep and drain

    def look(self, now: float) -> None:
        """End what takes too long."""
        self._resets = 0
        if self._lost:
            return
        for stream in list(self._streams.values()):
            stream.look(now)
        if not self._streams and now - self._idle_since > self.site.options.keep_alive_timeout_s:
            self.finish()

    @property
    def idle_since(self) -> float | None:
        """Part of Guest."""
        return None if self._streams or self._lost or self._leaving else self._idle_since

    def leave(self, _now: float) -> None:
        """Part of Guest."""
        self.finish()

    def turn_away(self, _outcome: Outcome) -> None:
        """Part of Guest; HTTP/2 has no answer to what was not asked."""
        self.finish()

    def cut(self) -> None:
        """Part of Guest."""
        self._end()
        self._transport.abort()

    def finish(self) -> None:
        """Take no more streams, and close when those that there are have ended."""
        if self._lost or self._leaving:
            return
        self._leaving = True
        # Written by hand: h2 ends its connection with the frame, and the streams with it.
        self._write()
        self._transport.write(GoAwayFrame(stream_id=0, last_stream_id=self._last_stream).serialize())
        if not self._streams:
            self._transport.close()

    def _write(self) -> None:
        self._flush_scheduled = False
        data = self.h2.data_to_send()
        if data and not self._lost:
            self._transport.write(data)

    def _end(self) -> None:
        self._lost = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self.site.deadlines.forget(stream)
            stream.leave()

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._open(event)
            case h2.events.DataReceived():
                self._on_data(event)
            case h2.events.StreamEnded():
                self._on_end(event.stream_id)
            case h2.events.StreamReset():
                self._on_reset(event.stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._pump()
            case h2.events.ConnectionTerminated():
                self.finish()

    def _on_end(self, stream_id: int) -> None:
        if (stream := self._streams.get(stream_id)) is not None:
            stream.on_end()

    def _pump(self) -> None:
        for stream in list(self._streams.values()):
            stream.pump()

    def _open(self, event: h2.events.RequestReceived) -> None:
        if self._leaving or event.stream_id is None:
            return
        self._last_stream = event.stream_id
        stream = self._streams[event.stream_id] = Http2Stream(self, event.stream_id)
        stream.on_headers(event.headers)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.on_data(event.data or b"", event.flow_controlled_length or 0)
        elif event.flow_controlled_length:
            # Of an answered stream; the connection's window must not shrink for it.
            self.acknowledge(event.flow_controlled_length, event.stream_id)

    def acknowledge(self, size_bytes: int, stream_id: int) -> None:
        """Let the client send as much again."""
        try:
            self.h2.acknowledge_received_data(size_bytes, stream_id)
        except h2.exceptions.StreamClosedError:
            return
        self.flush()

    def _on_reset(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        self._resets += 1
        if stream is not None:
            stream.leave()
            self.forget(stream_id)
        if self._resets > MAX_RESETS_PER_SWEEP:
            # To open streams and reset them costs a client nothing, and us a request each.
            self.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._write()
            self._end()
            self._transport.close()
