"""Answers as HTTP/1.1 writes them. Pure, but for what it notes in the exchange."""

from salver.proxy.exchange import Exchange
from salver.proxy.heads import Head

CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


def whole(exchange: Exchange, head: Head, body: bytes, date: bytes, connection: bytes) -> bytes:
    """Return an answer in one piece."""
    text = head.sized(len(body))
    if exchange.is_head or head.bodyless:
        # The length is that of the body which a GET would have had.
        text, body = (head.whole if head.length is not None else text), b""
    return b"%bx-request-id: %b\r\n%b%b\r\n%b" % (text, exchange.request_id, date, connection, body)


def frame(exchange: Exchange, head: Head) -> bytes:
    """Settle how the end of a body is known; return the header that says so."""
    exchange.is_head = exchange.is_head or head.bodyless
    exchange.missing = head.length
    if head.length is not None or head.bodyless:
        return b""
    if exchange.is_old:
        exchange.keep_alive = False
        return b""
    exchange.chunked = True
    return b"transfer-encoding: chunked\r\n"


def start(exchange: Exchange, head: Head, framing: bytes, date: bytes, connection: bytes) -> bytes:
    """Return the head of an answer whose body follows."""
    return b"%b%bx-request-id: %b\r\n%b%b\r\n" % (head.whole, framing, exchange.request_id, date, connection)


def more(exchange: Exchange, body: bytes) -> bytes | None:
    """Return more of the body as it is written, or None where it is more than was announced."""
    if exchange.missing is not None:
        exchange.missing -= len(body)
        if exchange.missing < 0:
            # It would be taken for the next answer.
            return None
    return b"%x\r\n%b\r\n" % (len(body), body) if exchange.chunked else body


def end(exchange: Exchange, trailers: bytes) -> bytes | None:
    """Return what ends the body, or None where some of it is missing."""
    if exchange.is_head:
        return b""
    if exchange.missing:
        return None
    if not exchange.chunked:
        return b""
    return b"0\r\n%b\r\n" % trailers if trailers else _LAST_CHUNK
