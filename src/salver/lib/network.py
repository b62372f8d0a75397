"""What the system knows of a TCP connection."""

import socket
from asyncio import BaseTransport

_TCP_INFO = getattr(socket, "TCP_INFO", None)
# Linux's numbers, from linux/tcp_states.h.
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8


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
