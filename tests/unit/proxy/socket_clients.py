"""A WebSocket client without I/O, and frames made by hand."""

import struct

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from salver.proxy.socket_frames import Message
from salver.transport.wire import BYTES, TEXT

DEFLATE = b"permessage-deflate; client_max_window_bits"
MASK = b"\x01\x02\x03\x04"


class SocketClient:
    """Speaks as a browser does, with `websockets`' own client side.

    Args:
        answered: What the server said about extensions.
    """

    def __init__(self, answered: str | None = None) -> None:
        self.protocol = ClientProtocol(
            parse_uri("ws://here/"),
            state=State.OPEN,
            max_size=None,
            extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
        )
        if answered is not None:
            headers = Headers([("Sec-WebSocket-Extensions", answered)])
            self.protocol.extensions = self.protocol.process_extensions(headers)
        self._parts: list[bytes] = []
        self._kind = TEXT

    def message(self, message: Message, cuts: tuple[int, ...] = (), pings: bool = False) -> bytes:
        """Return the bytes of a message, cut into fragments at these places, with pings between them."""
        body, text = message.body, message.kind == TEXT
        ends = sorted(min(cut, len(body)) for cut in cuts)
        pieces = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
        for number, piece in enumerate(pieces):
            fin = number == len(pieces) - 1
            if number:
                self.protocol.send_continuation(piece, fin)
            elif text:
                self.protocol.send_text(piece, fin)
            else:
                self.protocol.send_binary(piece, fin)
            if pings:
                self.protocol.send_ping(b"between")
        return self.written()

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """Return the bytes of a close."""
        self.protocol.send_close(code, reason)
        return self.written()

    def written(self) -> bytes:
        """Return what it writes."""
        return b"".join(self.protocol.data_to_send())

    def read(self, data: bytes) -> list[Message]:
        """Return the messages in what a server wrote."""
        self.protocol.receive_data(data)
        found = []
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                found.append(Message(TEXT if frame.opcode is Opcode.TEXT else BYTES, bytes(frame.data)))
        return found

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Return the server's close."""
        close = self.protocol.close_rcvd
        return None if close is None else (int(close.code), close.reason)


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """Return a frame, right or wrong."""
    size = len(data)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask_bit = masked << 7
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + data
    return head + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a close, right or wrong."""
    return frame(8, struct.pack("!H", code) + reason)


BAD = {
    "a reserved bit": (frame(1, b"x", reserved=1), 1002),
    "another reserved bit": (frame(1, b"x", reserved=2), 1002),
    "the first reserved bit without compression": (frame(1, b"x", reserved=4), 1002),
    "opcode 3": (frame(3), 1002),
    "opcode 7": (frame(7, b"x"), 1002),
    "opcode 11": (frame(11), 1002),
    "opcode 15": (frame(15, b"x"), 1002),
    "a ping in fragments": (frame(9, b"x", fin=False), 1002),
    "a pong in fragments": (frame(10, fin=False), 1002),
    "a close in fragments": (frame(8, fin=False), 1002),
    "a long ping": (frame(9, bytes(126)), 1002),
    "a long close": (close_frame(1000, bytes(124)), 1002),
    "no mask": (frame(1, b"x", masked=False), 1002),
    "a fragment of nothing": (frame(0, b"x"), 1002),
    "a message within a message": (frame(1, b"a", fin=False) + frame(1, b"b"), 1002),
    "a close of one byte": (frame(8, b"\x03"), 1002),
    "a close's reason that is no UTF-8": (close_frame(1000, b"\xff"), 1007),
    "text that is no UTF-8": (frame(1, b"ab\xff"), 1007),
    "text that ends within a character": (frame(1, "é".encode()[:1]), 1007),
    "text with half a surrogate pair": (frame(1, b"\xed\xa0\x80"), 1007),
    "text above the last character": (frame(1, b"\xf4\x90\x80\x80"), 1007),
    "text that is wrong in its second fragment": (frame(1, b"ab", fin=False) + frame(0, b"\xff", fin=False), 1007),
    "text whose last fragment ends within a character": (frame(1, b"ab", fin=False) + frame(0, b"\xc3"), 1007),
    "a length of 2 ** 63": (b"\x81\xff" + struct.pack("!Q", 2**63) + MASK, 1009),
    "a message of 16 MiB and a byte": (b"\x82\xff" + struct.pack("!Q", (16 << 20) + 1) + MASK, 1009),
}
BAD |= {f"close code {code}": (close_frame(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)}
"""What a client must not send, and the code that it is closed with."""

GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
