"""WebSockets of an ASGI client, through the proxy's own exchange."""

import asyncio
from collections.abc import Mapping
from typing import Any

from salver.lib.tasks import Tasks
from salver.proxy.deadlines import timed_out
from salver.proxy.dispatch import look_up, timeout_of
from salver.proxy.heads import Head, outcome_head
from salver.proxy.site import Site
from salver.proxy.socket_exchange import SocketExchange
from salver.proxy.websocket import GOING_AWAY, POLICY_VIOLATION
from salver.runtime.ingress import Receive, Send
from salver.schema.outcomes import INTERNAL_ERROR, Outcome
from salver.testing.asking import BROKEN_OFF, Bridge, caller_of, length_of, own_fields, request_of
from salver.transport.wire import BYTES, TEXT, AcceptedHead

NORMAL = 1000  # what ASGI means where a message names no code
_LAST = frozenset({"websocket.close"})


class SocketAsking:
    """One WebSocket; the `SocketClient` of its exchange. What is not marked as the caller's runs in the site's loop.

    Args:
        site: The proxy.
        loop: The site's.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, scope: Mapping[str, Any]) -> None:
        self._site = site
        self._bridge = Bridge(loop)
        self._loop = loop
        self._request = request_of(scope)
        self._caller = caller_of(scope)
        self._exchange: SocketExchange | None = None
        self._timeout_s: float | None = None
        self._over = False
        self._room = asyncio.Event()

    # The caller's loop

    async def run(self, receive: Receive, send: Send) -> None:
        """Open the WebSocket and carry messages both ways, until either side closes."""
        await receive()
        tasks = Tasks(on_error=self._bridge.fail)
        self._bridge.act(self._begin)
        tasks.start(self._pass_on(receive), name="messages")
        try:
            more = True
            while more:
                message = await self._bridge.next(self._keeps_up)
                more = message["type"] not in _LAST and message.get("more_body", True)
                await send(message)
        finally:
            self._bridge.act(self._leave, GOING_AWAY, "")
            await tasks.close()

    async def _pass_on(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            self._room.clear()
            if text is None:
                self._bridge.act(self._take, BYTES, message["bytes"])
            else:
                self._bridge.act(self._take, TEXT, text.encode())
            await self._room.wait()
        self._bridge.act(self._leave, message.get("code", NORMAL), message.get("reason") or "")

    # The site's loop

    def _begin(self) -> None:
        head, router, outcome = look_up(self._site, self._caller, self._request)
        if router is None:
            self.refuse(outcome or INTERNAL_ERROR)
            return
        self._timeout_s = timeout_of(self._site, self._request)
        if self._timeout_s is not None:
            self._site.deadlines.watch(self, self._loop.time() + self._timeout_s)
        self._exchange = SocketExchange(self, router, head)
        self._exchange.begin()

    def _take(self, kind: int, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.pass_on(kind, body)
        self.read_on()

    def _leave(self, code: int, reason: str) -> None:
        self._site.deadlines.forget(self)
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.accepted:
            exchange.tell_closed(code, reason)
        else:
            exchange.cancel()
        if not self._over:
            self._end({"type": "websocket.close", "code": code, "reason": reason})

    def _keeps_up(self) -> None:
        if self._exchange is not None:
            self._exchange.client_keeps_up()

    def on_deadline(self, _now: float) -> None:
        """Its time is over; part of Mortal."""
        exchange, timeout_s = self._exchange, self._timeout_s
        if exchange is None or timeout_s is None or self._over:
            return
        outcome = timed_out(self._request.request_id, timeout_s)
        exchange.cancel()
        if exchange.accepted:
            self.close(POLICY_VIOLATION, outcome.body.decode())
        elif exchange.answered:
            self.cut()
        else:
            self.refuse(outcome)

    # SocketClient

    def accept(self, head: AcceptedHead) -> None:
        """Part of SocketClient."""
        headers = [*head.headers, *own_fields(self._site, self._request.request_id)]
        self._tell({"type": "websocket.accept", "subprotocol": head.subprotocol, "headers": headers})

    def deny(self, header: bytes, body: bytes, *, more: bool) -> bool:
        """Part of SocketClient."""
        head = self._site.heads.get(header)
        self._deny(head, body, more=more)
        return self._bridge.keeps_up

    def deny_more(self, body: bytes) -> bool:
        """Part of SocketClient."""
        if body:
            self._tell({"type": "websocket.http.response.body", "body": body, "more_body": True}, len(body))
        return self._bridge.keeps_up

    def deny_end(self, body: bytes) -> None:
        """Part of SocketClient."""
        self._end({"type": "websocket.http.response.body", "body": body, "more_body": False})

    def refuse(self, outcome: Outcome) -> None:
        """Part of SocketClient."""
        self._deny(outcome_head(outcome), outcome.body, more=False)

    def send(self, kind: int, body: bytes) -> bool:
        """Part of SocketClient."""
        message = {"text": body.decode()} if kind == TEXT else {"bytes": body}
        self._tell({"type": "websocket.send", **message}, len(body))
        return self._bridge.keeps_up

    def close(self, code: int, reason: str) -> None:
        """Part of SocketClient."""
        self._end({"type": "websocket.close", "code": code, "reason": reason})

    def cut(self) -> None:
        """Part of SocketClient."""
        self._end(BROKEN_OFF)

    def read_on(self) -> None:
        """Part of SocketClient."""
        if self._over or self._exchange is None or self._exchange.window > 0:
            self._bridge.wake(self._room)

    def _deny(self, head: Head, body: bytes, *, more: bool) -> None:
        headers = [*head.fields, *own_fields(self._site, self._request.request_id)]
        if not more:
            headers += length_of(head, len(body))
        self._tell({"type": "websocket.http.response.start", "status": head.status, "headers": headers})
        message = {"type": "websocket.http.response.body", "body": body, "more_body": more}
        if more:
            self._tell(message, len(body))
        else:
            self._end(message)

    def _tell(self, message: dict[str, Any], size: int = 0) -> None:
        if not self._over:
            self._bridge.tell(message, size)

    def _end(self, message: dict[str, Any] | BaseException) -> None:
        if not self._over:
            self._over = True
            self._bridge.tell(message)
            self.read_on()
