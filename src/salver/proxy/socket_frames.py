"""WebSocket frames without I/O: a client's bytes become whole messages, messages become bytes for a client.

Fragments, masks, pings and compression end here. `websockets` does the work of RFC 6455 and RFC 7692; what it leaves to
its users is added: text is checked, and fragments are put together.
"""

import codecs
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from salver.proxy.limits import MAX_DEFLATED_SIZE_BYTES, MAX_MESSAGE_SIZE_BYTES
from salver.telemetry.logs import LOGGER_NAME
from salver.transport.wire import BYTES, TEXT

if TYPE_CHECKING:
    from websockets.extensions import Extension

# The windows and the memory level that cost 64 KiB a connection, and next to nothing in compression.
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)
_KINDS = {Opcode.TEXT: TEXT, Opcode.BINARY: BYTES}
_MAX_REASON_SIZE_BYTES = 123
_Utf8 = codecs.getincrementaldecoder("utf-8")

_logger = logging.getLogger(f"{LOGGER_NAME}.websockets")
_logger.setLevel(logging.ERROR)


class Message(NamedTuple):
    """A whole message.

    Attributes:
        kind: TEXT or BYTES, as on the wire between processes.
        body: Of a text, its UTF-8, which is valid.
    """

    kind: int
    body: bytes


class SocketFrames:
    """The state of one WebSocket, opened.

    Args:
        extensions: The values of the client's `Sec-WebSocket-Extensions`.

    Attributes:
        extensions: What the client is answered about extensions, or None.
        num_pings: How many pings were answered.

    Raises:
        ValueError: The extensions are malformed.
    """

    def __init__(self, extensions: Sequence[bytes] = ()) -> None:
        self._protocol = ServerProtocol(
            extensions=[_DEFLATE], state=State.OPEN, max_size=MAX_MESSAGE_SIZE_BYTES, logger=_logger
        )
        headers = Headers([("Sec-WebSocket-Extensions", each.decode("latin-1")) for each in extensions])
        try:
            self.extensions, self._protocol.extensions = self._protocol.process_extensions(headers)
        except InvalidHandshake as error:
            raise ValueError(str(error)) from None
        self.num_pings = 0
        self._kind = TEXT
        self._body = bytearray()
        self._utf8 = _Utf8()

    @property
    def is_open(self) -> bool:
        """Say whether messages may still be sent."""
        return self._protocol.state is State.OPEN

    @property
    def is_over(self) -> bool:
        """Say whether both sides have said that they close, or the client has broken off."""
        return self._protocol.close_rcvd is not None or self._protocol.state is State.CLOSED

    @property
    def close_code(self) -> int:
        """Return how it closed: as the client said, else as it was told to; 1006 for a client that vanished."""
        return int(self._close.code)

    @property
    def close_reason(self) -> str:
        """Return the reason that came with the code."""
        return self._close.reason

    @property
    def _close(self) -> Close:
        protocol = self._protocol
        return protocol.close_rcvd or protocol.close_sent or Close(CloseCode.ABNORMAL_CLOSURE, "")

    def feed(self, data: bytes) -> list[Message]:
        """Take a client's bytes; return the messages that are whole now. Nothing comes after a close."""
        protocol = self._protocol
        if protocol.state is State.CLOSED:
            return []
        protocol.receive_data(data)
        messages: list[Message] = []
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            try:
                self._take(event, messages)
            except UnicodeDecodeError as error:
                protocol.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                break
        return messages

    def feed_eof(self) -> None:
        """The client sends nothing more."""
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()

    def send(self, message: Message) -> None:
        """Send a message; nothing is sent after a close."""
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            return
        kept: list[Extension] = protocol.extensions
        if len(message.body) > MAX_DEFLATED_SIZE_BYTES:
            # Compressing it would hold up all other clients; each message may be compressed or not.
            protocol.extensions = []
        send = protocol.send_text if message.kind == TEXT else protocol.send_binary
        send(message.body)
        protocol.extensions = kept

    def close(self, code: int, reason: str) -> None:
        """Say that nothing more is sent, and why; once.

        Raises:
            ValueError: The code is not one that may be sent.
        """
        if self._protocol.state is not State.OPEN:
            return
        try:
            self._protocol.send_close(code, cut_reason(reason))
        except ProtocolError:
            raise ValueError(f"{code} is no code that a WebSocket can be closed with") from None

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")

    def take(self) -> list[bytes]:
        """Return what is to be written to the client; an empty piece is the end of it."""
        return self._protocol.data_to_send()

    def release(self) -> None:
        """Let go of all that is large: the rest is garbage in a circle, which is found late."""
        self._protocol.extensions = []
        self._body = bytearray()

    def _take(self, frame: Frame, messages: list[Message]) -> None:
        opcode = frame.opcode
        if opcode is Opcode.PING:
            self.num_pings += 1
        elif opcode is Opcode.CONT:
            self._go_on(frame, messages)
        elif opcode in _KINDS:
            self._kind = _KINDS[opcode]
            if not frame.fin:
                self._utf8.reset()
                self._go_on(frame, messages)
                return
            if opcode is Opcode.TEXT:
                bytes(frame.data).decode()
            messages.append(Message(self._kind, bytes(frame.data)))

    def _go_on(self, frame: Frame, messages: list[Message]) -> None:
        """Add a fragment. One array for all: a list of a million fragments would be far larger than they are."""
        if self._kind == TEXT:
            self._utf8.decode(bytes(frame.data), frame.fin)
        self._body += frame.data
        if frame.fin:
            messages.append(Message(self._kind, bytes(self._body)))
            self._body = bytearray()


def cut_reason(reason: str) -> str:
    """Return as much of a reason as a close frame holds."""
    return reason.encode("utf-8", "replace")[:_MAX_REASON_SIZE_BYTES].decode("utf-8", "ignore")
