"""Half of an HTTP/1.1 connection: what is written to the client."""

from abc import abstractmethod

from salver.proxy import answers
from salver.proxy.client_connection import ClientConnection
from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head
from salver.proxy.parsing import RequestParser
from salver.proxy.site import Site


class AnsweringConnection(ClientConnection):
    """Writes answers; who reads requests is `HttpConnection`.

    Args:
        site: What it shares with other connections.
    """

    _parser: RequestParser

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._current: Exchange | None = None
        self._lost = False
        self._congested = False
        self._held: list[bytes] = []

    # Client

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._site.heads.get(encoded)

    def write_whole(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        if exchange.is_arriving:
            exchange.keep_alive = False
        self._transport.write(answers.whole(exchange, head, body, self._site.date, self._connection_header(exchange)))
        self._finished(exchange)

    def write_start(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Part of Client."""
        if self._lost:
            return
        framing = answers.frame(exchange, head)
        connection = self._connection_header(exchange)
        self._transport.write(answers.start(exchange, head, framing, self._site.date, connection))
        self.write_more(exchange, body)
        # The first byte waits for nothing.
        self.flush()

    def write_more(self, exchange: Exchange, body: bytes) -> bool:
        """Part of Client."""
        if self._lost or not body or exchange.is_head:
            return True
        data = answers.more(exchange, body)
        if data is None:
            self.cut()
            return True
        if self._held:
            self._held.append(data)
        else:
            self._held = [data]
            self._site.batches.add(self)
        return not self._congested

    def flush(self) -> None:
        """Write what was held back; part of Held."""
        held, self._held = self._held, []
        if held and not self._lost:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def write_end(self, exchange: Exchange, body: bytes, trailers: bytes = b"") -> None:
        """Part of Client."""
        self.write_more(exchange, body)
        self.flush()
        if self._lost or self._current is not exchange:
            return
        data = answers.end(exchange, trailers)
        if data is None:
            self.cut()
            return
        if data:
            self._transport.write(data)
        self._finished(exchange)

    def _connection_header(self, exchange: Exchange) -> bytes:
        """Settle whether the connection stays; return the header that says so, where one is needed."""
        if not exchange.keep_alive or (self._site.draining and self._is_last):
            exchange.keep_alive = False
            return answers.CLOSE
        return answers.KEEP_ALIVE if exchange.is_old else b""

    @property
    def _is_last(self) -> bool:
        """Say whether nothing was asked after what is answered now."""
        return not self._has_more and not self._parser.arriving

    @property
    @abstractmethod
    def _has_more(self) -> bool:
        """Say whether requests wait that have arrived already."""

    @abstractmethod
    def _finished(self, exchange: Exchange) -> None:
        """An answer is written."""

    @abstractmethod
    def cut(self) -> None:
        """Break the connection; part of Client."""
