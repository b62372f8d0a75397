"""A request that is handed to the proxy without a connection: what it says, and how two event loops talk about it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from salver.proxy.dispatch import Caller
from salver.proxy.heads import Head
from salver.proxy.http2_headers import read_headers
from salver.proxy.request import Request
from salver.proxy.site import Site
from salver.schema.errors import Disconnected, SalverError

ENOUGH_SIZE_BYTES = 256 * 1024
"""A replica is told to wait when so much of its answer waits for the client."""

BROKEN_OFF = Disconnected("The answer broke off: a client's connection would be cut here.")

_OF_HANDSHAKES = {"ws": "http", "wss": "https"}

Fields = list[tuple[bytes, bytes]]


def request_of(scope: Mapping[str, Any]) -> Request:
    """Return the request that an ASGI scope describes, as the proxy reads it from a connection."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    # How the body is sent is between a client and its server, and here is no connection.
    headers = [(name.lower(), value) for name, value in scope["headers"] if name.lower() != b"transfer-encoding"]
    request = Request()
    request.version = scope.get("http_version", "1.1")
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    request.refused = read_headers(
        request, [(b":method", scope.get("method", "GET").encode()), (b":path", target), *headers]
    )
    return request


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Return who asks."""
    peer = scope.get("client")
    scheme = scope.get("scheme", "http")
    return Caller(None if peer is None else (str(peer[0]), int(peer[1] or 0)), _OF_HANDSHAKES.get(scheme, scheme))


def own_fields(site: Site, request_id: bytes) -> Fields:
    """Return what the proxy adds to every answer."""
    name, _, date = site.date.strip().partition(b": ")
    return [(b"x-request-id", request_id), *([(name, date)] if name else [])]


def length_of(head: Head, size: int) -> Fields:
    """Return the length of an answer's body, unless its status forbids one."""
    return [] if head.bodyless else [(b"content-length", b"%d" % size)]


class Bridge:
    """Carries words between the event loop of a caller and that of the instance.

    Args:
        loop: The instance's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._instance = loop
        self._caller = asyncio.get_running_loop()
        self._messages: asyncio.Queue[tuple[dict[str, Any] | BaseException, int]] = asyncio.Queue()
        self._told = 0
        self._taken = 0

    @property
    def keeps_up(self) -> bool:
        """Say whether the caller takes what it is told."""
        return self._told - self._taken < ENOUGH_SIZE_BYTES

    def act(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call something in the instance's loop.

        Raises:
            SalverError: The instance has ended.
        """
        try:
            self._instance.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            raise SalverError("The application was shut down while a request was being made.") from None

    def tell(self, message: dict[str, Any] | BaseException, size: int = 0) -> None:
        """Hand the caller an ASGI message, or what it gets instead, from the instance's loop."""
        self._told += size
        self._post(self._messages.put_nowait, (message, size))

    def fail(self, _name: str, error: BaseException) -> None:
        """Let the caller hear of an error in its own loop; part of `Tasks`."""
        self._messages.put_nowait((error, 0))

    def wake(self, event: asyncio.Event) -> None:
        """Set an event of the caller's loop, from the instance's."""
        self._post(event.set)

    async def next(self, keeps_up: Callable[[], None]) -> dict[str, Any]:
        """Return the next message; `keeps_up` is called in the instance's loop where that waited for it to be taken.

        Raises:
            Disconnected: The answer broke off; a client would see its connection break.
        """
        message, size = await self._messages.get()
        if isinstance(message, BaseException):
            raise message
        was_behind = not self.keeps_up
        self._taken += size
        if was_behind and self.keeps_up:
            self.act(keeps_up)
        return message

    def _post(self, callback: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._caller.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The caller's loop has ended: nobody waits.
            return
