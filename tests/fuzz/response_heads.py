"""The writer of response heads: what it writes is one head with those headers, or nothing."""

import h11
import msgspec
from hypothesis import strategies as st

from salver.proxy.heads import Heads
from salver.transport.wire import ResponseHead
from tests.fuzz.mutation import Input, inputs

HEADS = [
    msgspec.msgpack.encode(ResponseHead(status, headers))
    for status, headers in [
        (200, [(b"content-type", b"text/plain"), (b"content-length", b"5")]),
        (204, [(b"x", b"y")]),
        (304, [(b"content-length", b"9"), (b"etag", b'"x"')]),
        (404, [(b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c")]),
        (999, []),
        (200, [(b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"), (b"x-\xff", b"")]),
        (100, [(b"a", b"b")]),
        (200, [(b"x", b"y\r\n\r\nHTTP/1.1 200 OK\r\n")]),
        (200, [(b"x\r\ny", b"z"), (b"", b"")]),
        (200, [(b"content-length", b"5"), (b"content-length", b"6")]),
    ]
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\x7f", b"\xff", b"\x80", b"content-length", b"transfer-encoding",
    b"chunked",
    b"\xc4\x01x", b"\xcc\xc8", b"\xcd\x03\xe7", b"\x92", b"\x90", b"\xc0", b"\xa1x", b"Content-Length", b"\r\n\r\n",
]  # fmt: skip

cases: st.SearchStrategy[Input] = inputs(HEADS, WORDS)


def check(case: Input) -> None:
    """Assert that a head is refused, or that a client reads of it exactly what the replica said."""
    heads = Heads()
    try:
        head = heads.get(case.data)
    except ValueError:
        return
    assert heads.get(case.data) == head
    said = msgspec.msgpack.decode(case.data, type=ResponseHead)
    response = _read(head.sized(5) + b"\r\n" + b"hello")
    assert response.status_code == said.status
    left = {"connection", "keep-alive", "proxy-connection", "trailer", "transfer-encoding", "upgrade", "date"}
    left |= {"content-length", "x-request-id"}
    kept = [
        (name.lower(), value.strip(b" \t"))
        for name, value in said.headers
        if name.lower().decode("latin-1") not in left
    ]
    got = [(name, value) for name, value in response.headers if name != b"content-length"]
    assert got == kept


def _read(data: bytes) -> h11.Response:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    return response
