"""HTTP requests of an ASGI client, answered by the proxy's own exchange, without a connection."""

import asyncio
from collections.abc import Mapping
from typing import Any

from salver.lib.tasks import Tasks
from salver.proxy.body_limit import too_long_for
from salver.proxy.deadlines import Abandoned, timed_out
from salver.proxy.dispatch import begin, exchange_for
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head, outcome_head
from salver.proxy.site import Site
from salver.runtime.ingress import Receive, Send
from salver.schema.outcomes import Outcome
from salver.testing.asking import BROKEN_OFF, Bridge, Fields, caller_of, length_of, own_fields, request_of


class HttpAsking:
    """One request; the `Client` of its exchange. What its comments do not call the caller's runs in the site's loop.

    Args:
        site: The proxy.
        loop: The site's.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, scope: Mapping[str, Any]) -> None:
        self._site = site
        self._loop = loop
        self._bridge = Bridge(loop)
        self._request = request_of(scope)
        self._caller = caller_of(scope)
        self._exchange: Exchange | None = None
        self._arrived = False
        self._over = False
        self._room = asyncio.Event()

    # The caller's loop

    async def run(self, receive: Receive, send: Send) -> None:
        """Send the request and pass its answer on."""
        tasks = Tasks(on_error=self._bridge.fail)
        tasks.start(self._upload(receive), name="upload")
        try:
            more = True
            while more:
                message = await self._bridge.next(self._keeps_up)
                more = message.get("more_body", message["type"] == "http.response.start")
                await send(message)
        finally:
            self._bridge.act(self._leave)
            await tasks.close()

    async def _upload(self, receive: Receive) -> None:
        body = bytearray()
        began = is_last = False
        while (message := await receive())["type"] != "http.disconnect":
            piece = message.get("body", b"")
            is_last = is_last or not message.get("more_body", False)
            if began:
                self._room.clear()
                self._bridge.act(self._add, piece, is_last)
                await self._room.wait()
                continue
            body += piece
            if is_last or self._request.is_long or self._request.refused is not None:
                began = True
                self._bridge.act(self._begin, bytes(body), is_last)
        self._bridge.act(self._leave)

    # The site's loop

    def _begin(self, body: bytes, is_whole: bool) -> None:
        request = self._request
        request.body, request.body_size, request.begun = body, len(body), not is_whole
        self._arrived = is_whole
        exchange, outcome = exchange_for(self, self._site, self._caller, request)
        self._exchange = exchange
        if exchange.deadline is not None:
            self._site.deadlines.watch(self, exchange.deadline)
        begin(self, exchange, outcome)

    def _add(self, data: bytes, is_last: bool) -> None:
        exchange, request = self._exchange, self._request
        request.body_size += len(data)
        limit = request.max_body_size_bytes
        if exchange is not None and not self._over:
            if limit is not None and request.body_size > limit:
                self._refuse(too_long_for(limit))
            exchange.add_body(data)
            if is_last:
                self._arrived = True
                exchange.end_body()
        self.body_taken()

    def _leave(self) -> None:
        """The caller waits no longer."""
        exchange = self._exchange
        if self._over:
            return
        self._bridge.tell({"type": "http.disconnect"})
        self._end()
        if exchange is None:
            return
        if exchange.outlives_client and self._arrived and not exchange.abandoned:
            Abandoned(self._site, exchange)
        else:
            exchange.cancel()

    def _keeps_up(self) -> None:
        if self._exchange is not None and not self._over:
            self._exchange.client_keeps_up()

    def _refuse(self, outcome: Outcome) -> None:
        exchange = self._exchange
        if exchange is None or self._over:
            return
        exchange.cancel()
        if exchange.started:
            self.cut()
        else:
            exchange.started = True
            self.write_whole(exchange, outcome_head(outcome), outcome.body)

    def on_deadline(self, _now: float) -> None:
        """The time of the request is over; part of Mortal."""
        exchange = self._exchange
        if exchange is not None and exchange.timeout_s is not None:
            self._refuse(timed_out(exchange.request_id, exchange.timeout_s))

    # Client

    def now(self) -> float:
        """Part of Client."""
        return self._loop.time()

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._site.heads.get(encoded)

    def body_taken(self) -> None:
        """Part of Client."""
        upload = self._exchange.upload if self._exchange is not None else None
        if self._over or upload is None or not upload.is_full:
            self._bridge.wake(self._room)

    def write_whole(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        size = head.length if exchange.is_head and head.length is not None else len(body)
        self._write_head(exchange, head, length_of(head, size))
        self._write_body(b"" if exchange.is_head or head.bodyless else body, more=False)
        self._end()

    def write_start(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        exchange.is_head = exchange.is_head or head.bodyless
        exchange.missing = head.length
        self._write_head(exchange, head, [] if head.length is None else length_of(head, head.length))
        self.write_more(exchange, body)

    def write_more(self, exchange: Exchange, body: bytes) -> bool:
        """Part of Client."""
        if self._over or not body or exchange.is_head:
            return True
        if exchange.missing is not None:
            exchange.missing -= len(body)
            if exchange.missing < 0:
                self.cut()
                return True
        self._write_body(body, more=True)
        return self._bridge.keeps_up

    def write_end(self, exchange: Exchange, body: bytes, trailers: bytes) -> None:
        """Part of Client; ASGI clients do not read trailers."""
        self.write_more(exchange, body)
        if exchange.missing and not exchange.is_head:
            self.cut()
            return
        self._write_body(b"", more=False)
        self._end()

    def cut(self) -> None:
        """Part of Client."""
        if not self._over:
            self._bridge.tell(BROKEN_OFF)
            if self._exchange is not None:
                self._exchange.cancel()
            self._end()

    def _write_head(self, exchange: Exchange, head: Head, fields: Fields) -> None:
        if not self._over:
            headers = [*head.fields, *fields, *own_fields(self._site, exchange.request_id)]
            self._bridge.tell({"type": "http.response.start", "status": head.status, "headers": headers})

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if not self._over:
            self._bridge.tell({"type": "http.response.body", "body": body, "more_body": more}, len(body))

    def _end(self) -> None:
        self._over = True
        self._site.deadlines.forget(self)
        self.body_taken()
