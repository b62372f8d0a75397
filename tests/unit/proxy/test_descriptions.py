"""What routers may know of requests over HTTP and of WebSockets."""

from typing import Any, cast

from salver.handle.outgoing import Description, HttpRequest
from salver.proxy.exchange import Exchange
from salver.proxy.request import Request
from salver.proxy.socket_exchange import SocketExchange
from salver.transport.wire import HttpHead

NOBODY = cast("Any", None)
HEAD = HttpHead("POST", "/shop/x", b"a=1", "1.1", [(b"host", b"h")], None, "r1", "/shop", "/shop", "/shop/x")


def test_a_request_is_described_by_its_id_and_route_and_has_itself_as_its_argument() -> None:
    request = Request()
    request.body += b"hello"
    exchange = Exchange(NOBODY, None, HEAD, request, None)
    assert exchange.describe() == Description("r1", "", "/shop", is_http_request=True)
    assert exchange.arguments() == ((HttpRequest("POST", "/shop/x", b"a=1", ((b"host", b"h"),), b"hello"),), {})


def test_a_websocket_is_described_likewise() -> None:
    exchange = SocketExchange(NOBODY, NOBODY, HEAD)
    assert exchange.describe() == Description("r1", "", "/shop", is_http_request=True)
    assert exchange.arguments()[0][0].body == b""
