"""What a process is told on a fresh line, before it speaks the wire protocol; arguments would be for all to see."""

import socket
import struct

_SIZE = struct.Struct("<I")


def send_first_word(line: socket.socket, word: bytes) -> None:
    """Write it; it must be shorter than what a socket buffers, for nobody may read yet."""
    line.sendall(_SIZE.pack(len(word)) + word)


def receive_first_word(line: socket.socket) -> bytes:
    """Read it, from a blocking socket.

    Raises:
        EOFError: The other end is gone.
    """
    [size] = _SIZE.unpack(_read(line, _SIZE.size))
    return _read(line, size)


def _read(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise EOFError("the line ended before the first word")
        data += piece
    return data
