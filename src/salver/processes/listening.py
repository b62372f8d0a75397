"""The sockets on which an instance's proxies listen; the agent opens them, and they outlive every proxy."""

import errno
import socket
import sys
from typing import NamedTuple

from salver.lib.processes import who_listens_on
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions

HTTP_LISTENER = "http"
BACKLOG = 4096


class Listeners(NamedTuple):
    """Listening sockets.

    Attributes:
        sockets: All of them, by name.
        of_proxies: For each proxy the name of its socket.
    """

    sockets: dict[str, socket.socket]
    of_proxies: tuple[str, ...]

    @property
    def address(self) -> tuple[str, int] | None:
        """Return host and port, or None where nobody listens."""
        first = next(iter(self.sockets.values()), None)
        return None if first is None else first.getsockname()[:2]


NOBODY = Listeners({}, ())


def open_listeners(http: HTTPOptions) -> Listeners:
    """Listen on the HTTP port.

    Several proxies have a socket each where the system deals connections out evenly among the sockets of one port; a
    socket that they shared would give most connections to whoever wakes first.

    Raises:
        SalverError: That cannot be; the message is one line that says why.
    """
    try:
        if http.num_proxies == 1 or sys.platform != "linux":
            sock = _listen(http.host or "", http.port)
            return Listeners({HTTP_LISTENER: sock}, (HTTP_LISTENER,) * http.num_proxies)
        return _one_each(http)
    except (OSError, UnicodeError) as error:
        raise SalverError(_why_not(http, error)) from error


def _one_each(http: HTTPOptions) -> Listeners:
    # First without sharing: nobody else's port may be shared by accident.
    with _bound(http.host or "", http.port, shared=False) as probe:
        port = probe.getsockname()[1]
    sockets: dict[str, socket.socket] = {}
    try:
        for number in range(1, http.num_proxies + 1):
            sockets[f"{HTTP_LISTENER}-{number}"] = _listen(http.host or "", port, shared=True)
    except OSError:
        for each in sockets.values():
            each.close()
        raise
    return Listeners(sockets, tuple(sockets))


def _listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    sock = _bound(host, port, shared=shared)
    try:
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except (OSError, UnicodeError):
        sock.close()
        raise
    return sock


def _why_not(http: HTTPOptions, error: OSError | UnicodeError) -> str:
    holder = who_listens_on(http.port) if getattr(error, "errno", None) == errno.EADDRINUSE else None
    if holder is not None:
        return f"Port {http.port} on {http.host} is in use by {holder}. Stop it, or choose another with --port."
    why = getattr(error, "strerror", None) or error
    return f"Cannot listen on {http.host}:{http.port}: {why}. Choose another address with --host or --port."
