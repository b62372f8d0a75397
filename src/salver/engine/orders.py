"""What an agent orders of a zygote, and what comes back: msgpack on socket pairs, file descriptors beside it.

Every process begins as a zygote's twin with a line of its own, says on it that it was born, and waits for an order. So
the agent knows each process before it does anything, and what a process is told passes through nobody else.
"""

import contextlib
import os
import socket
import struct

import msgspec

from salver.schema.application import Preload

LENGTH = struct.Struct("<I")
_MAX_FDS = 32
# Descriptors must not outlive an exec in the receiver; macOS cannot say so on arrival.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Load(msgspec.Struct, tag=True, frozen=True):
    """Bring user code into memory; one descriptor for output comes along. Answered by Loaded or LoadFailed."""

    preload: Preload
    name: str


class Fork(msgspec.Struct, tag=True, frozen=True):
    """Fork a twin, whose line comes along; answered on that line by Born or Unborn.

    Attributes:
        for_code: The twin will load users' code, so whatever else it may need is to be in memory first.
    """

    for_code: bool


class Run(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Stop being a zygote and become this process; not answered.

    Descriptors come along: one for output, and one for each listener.
    """

    name: str
    entry: str
    payload: bytes
    env: dict[str, str]
    listeners: tuple[str, ...]
    node_id: str
    instance_dir: str


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """The code is in memory; `unforkable` says why it must not be forked, if so."""

    unforkable: str | None


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """The user's code raised, or could not be found."""

    reason: str


class Born(msgspec.Struct, tag=True, frozen=True):
    """The twin exists and waits for orders."""

    pid: int


class Unborn(msgspec.Struct, tag=True, frozen=True):
    """The system refused another process."""

    reason: str


Order = Load | Fork | Run
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
