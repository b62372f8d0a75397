"""Dialling and listening: Unix sockets on one host.

An address is text: `unix:/path`. A socket's directory may be entered by its owner only, which authenticates peers;
where the system tells who a peer is, it is looked at as well.
"""

import asyncio
import os
import socket
from asyncio import BaseTransport
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from salver.lib.network import peer_uid
from salver.schema.errors import Disconnected
from salver.transport.framing import FrameConnection, FrameSink

Dial = Callable[[str, FrameSink], Awaitable[FrameConnection]]
"""What `dial` is; `transport/memory.py` has another one."""


class Listener(Protocol):
    """A place that can be dialled."""

    def close(self) -> None:
        """Accept nobody new."""


def unix_address(path: str | Path) -> str:
    """Return the address of a Unix socket."""
    return f"unix:{path}"


class _OwnConnection(FrameConnection):
    """A connection to a process of the same user; any other is cut off before a byte is read."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        uid = peer_uid(transport)
        super().connection_made(transport)
        if uid is not None and uid != os.geteuid():
            self.abort()


def _path_of(address: str) -> str:
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not path:
        raise ValueError(f"'{address}' is not an address; expected 'unix:/path'")
    return path


async def dial(address: str, sink: FrameSink) -> FrameConnection:
    """Open a connection whose frames go to `sink`.

    Raises:
        Disconnected: Nobody listens at the address.
    """
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_unix_connection(lambda: _OwnConnection(sink), _path_of(address))
    except OSError as error:
        raise Disconnected(f"nobody listens at {address} ({error.strerror or error})") from error
    return connection


async def listen(address: str, accept: Callable[[], FrameSink]) -> asyncio.Server:
    """Listen for connections; `accept` makes the sink of each."""
    path = _path_of(address)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _OwnConnection(accept()), path, backlog=1024)
    os.chmod(path, 0o600)
    return server


async def adopt(sock: socket.socket, sink: FrameSink) -> FrameConnection:
    """Speak frames on a connected stream socket that was inherited."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: FrameConnection(sink), sock=sock)
    return connection
