"""What an agent orders of a zygote, and what comes back: msgpack on socket pairs, file descriptors beside it.

A zygote has a line of its own for orders. Each process that it forks has a line too, on which the newborn says that it
was born and then waits for leave to live, so that the agent knows every process before it does anything.
"""

import contextlib
import os
import socket
import struct

import msgspec

from salver.schema.application import Preload

LENGTH = struct.Struct("<I")
LIVE = b"\1"
_MAX_FDS = 32
# Descriptors must not outlive an exec in the receiver; macOS cannot say so on arrival.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Load(msgspec.Struct, tag=True, frozen=True):
    """Bring user code into memory; answered by Loaded or LoadFailed."""

    preload: Preload


class Fork(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Start a process; answered on the new process's own line, by Born or Unborn.

    Attributes:
        become: The zygote itself turns into the process; for code that must not be forked.
        fds: Names of the descriptors sent along: "output", "line", or a listener's name.
    """

    name: str
    entry: str
    payload: bytes
    env: dict[str, str]
    fds: tuple[str, ...]
    node_id: str
    instance_dir: str
    become: bool = False


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """The code is in memory; `unforkable` says why it must not be forked, if so."""

    unforkable: str | None


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """The user's code raised, or could not be found."""

    reason: str


class Born(msgspec.Struct, tag=True, frozen=True):
    """The process exists and waits for leave to live."""

    pid: int


class Unborn(msgspec.Struct, tag=True, frozen=True):
    """The system refused another process."""

    reason: str


Order = Load | Fork
Report = Loaded | LoadFailed | Born | Unborn

_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(Order).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode


class LineClosed(Exception):
    """The other end of the socket pair is gone."""


def encoded(message: Order | Report) -> tuple[bytes, bytes]:
    """Return the length, which the descriptors ride on, and the bytes that follow it."""
    data = _encode(message)
    return LENGTH.pack(len(data)), data


def decode_report(data: bytes) -> Report:
    """Return what came back."""
    report: Report = _decode_report(data)
    return report


def receive_order(line: socket.socket) -> tuple[Order, list[int]]:
    """Wait for an order.

    Raises:
        LineClosed: The agent is gone, or has let go of this zygote.
    """
    fds: list[int] = []
    try:
        data, fds, _, _ = socket.recv_fds(line, LENGTH.size, _MAX_FDS, _CLOSE_ON_EXEC)
        data += _receive_exactly(line, LENGTH.size - len(data)) if data else b""
        if not data:
            raise LineClosed
        order = _decode_order(_receive_exactly(line, LENGTH.unpack(data)[0]))
    except (OSError, LineClosed):
        for fd in fds:
            os.close(fd)
        raise LineClosed from None
    for fd in fds:
        os.set_inheritable(fd, False)
    return order, fds


def send_report(line: socket.socket, report: Report) -> None:
    """Answer an order; an agent that is gone is noticed by whoever reads next."""
    with contextlib.suppress(OSError):
        line.sendall(b"".join(encoded(report)))


def _receive_exactly(line: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = line.recv(min(size, 1 << 20))
        if not part:
            raise LineClosed
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
