"""Connections that go on in another protocol. What speaks it is imported when the first client asks for it.

Most proxies never see such a client, and the imports take as long as it takes to fork a replica.
"""

# ruff: noqa: PLC0415

from asyncio import AbstractEventLoop, Transport
from typing import TYPE_CHECKING

from salver.proxy.site import Site

if TYPE_CHECKING:
    from salver.handle.router import Router
    from salver.proxy.websocket import WebSocketConnection
    from salver.transport.wire import HttpHead

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What HTTP/2 begins with, on purpose something that HTTP/1.1 does not understand."""


def speak_http2(site: Site, loop: AbstractEventLoop, transport: Transport, data: bytes) -> None:
    """Let a connection go on in HTTP/2; the data has arrived already."""
    from salver.proxy.http2 import Http2Connection

    connection = Http2Connection(site, loop)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    if data:
        connection.data_received(data)


def websocket(
    site: Site, transport: Transport, router: "Router", head: "HttpHead", times: tuple[float | None, float]
) -> "WebSocketConnection":
    """Return what a connection goes on as; it begins when it is told to.

    Args:
        times: How many seconds it may take in all, or None; and loop time.
    """
    from salver.proxy.websocket import WebSocketConnection

    return WebSocketConnection(site, transport, router, head, *times)
