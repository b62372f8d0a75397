"""What the system knows of a connection."""

import socket
import struct
from asyncio import BaseTransport

_TCP_INFO = getattr(socket, "TCP_INFO", None)
# Linux's numbers, from linux/tcp_states.h.
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", None)
_CREDENTIALS = struct.Struct("3i")


def peer_has_closed(transport: BaseTransport) -> bool:
    """Say whether the other side has closed its connection, without reading; False where the system does not tell.

    Who does not read does not see the end of what comes either. An end that waits behind data for which there is no
    room here has not arrived yet.
    """
    hidden = transport.get_extra_info("socket")
    if _TCP_INFO is None or hidden is None:
        return False
    # Event loops hide the socket's options, but not its number.
    sock = socket.socket(fileno=hidden.fileno())
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] in (_TCP_CLOSE, _TCP_CLOSE_WAIT)
    except OSError:
        return False
    finally:
        sock.detach()


def peer_uid(transport: BaseTransport) -> int | None:
    """Return the user of the process at the other end of a Unix socket; None where the system does not tell."""
    hidden = transport.get_extra_info("socket")
    if _SO_PEERCRED is None or hidden is None or hidden.family != socket.AF_UNIX:
        return None
    sock = socket.socket(fileno=hidden.fileno())
    try:
        _pid, uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return None
    finally:
        sock.detach()
    return int(uid)
