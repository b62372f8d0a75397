"""HTTP/2 frames that no client means: whatever they are, the connection goes on or ends, and nothing stays."""

import asyncio
import logging
from typing import Any, cast

import h2.config
import h2.connection
from hypothesis import strategies as st

from salver.proxy.http import HttpConnection
from salver.telemetry.logs import LOGGER_NAME
from tests.fuzz.mutation import Input, inputs
from tests.unit.proxy.doubles import FakeSite, Transport
from tests.unit.proxy.test_http2 import GET, POST


def _conversations() -> list[bytes]:
    """Return what good clients send, each from the preface on."""
    found = []
    for headers, bodies in ((GET, []), (POST, [b"abc"]), (POST, [b"x" * 9000, b"y" * 9000]), (POST, [b""])):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        client.initiate_connection()
        for _ in range(2):
            stream = client.get_next_available_stream_id()
            client.send_headers(stream, [*headers, ("x-a", "b")], end_stream=not bodies)
            for number, body in enumerate(bodies, 1):
                client.send_data(stream, body, end_stream=number == len(bodies))
            client.ping(b"12345678")
        client.increment_flow_control_window(1000)
        client.reset_stream(stream)
        found.append(client.data_to_send())
    return found


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


CONVERSATIONS = _conversations()
WORDS = [
    *(_frame(kind, 0, 0, b"") for kind in range(11)),
    *(_frame(kind, 5, 1, bytes(8)) for kind in range(11)),
    *(_frame(kind, 4, 3, bytes(4)) for kind in range(11)),
    _frame(0, 1, 1, b"x" * 100),
    _frame(1, 5, 5, b"\x82\x86\x84\x41\x04here"),
    _frame(1, 1, 7, b"\x82\x86\x84\x41\x04here"),
    _frame(4, 0, 0, b"\0\x04\xff\xff\xff\xff"),
    _frame(8, 0, 0, b"\x7f\xff\xff\xff"),
    _frame(9, 4, 7, b"\x00\x01a\x01\n"),
    b"\xff\xff\xff",
    b"\0" * 9,
    *CONVERSATIONS,
]

cases: st.SearchStrategy[Input] = inputs(CONVERSATIONS, WORDS)


class _Errors(logging.Handler):
    """Keeps what the proxy reports."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


def check(case: Input) -> None:
    """Assert that nothing is reported as a bug, and that the end of the connection is the end of all."""
    errors = _Errors()
    logging.getLogger(LOGGER_NAME).addHandler(errors)
    try:
        _converse(case)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(errors)
    assert errors.texts == []


def _converse(case: Input) -> None:
    site, transport = FakeSite(), Transport()
    first = HttpConnection(site, cast("asyncio.AbstractEventLoop", site.loop))
    first.connection_made(transport)
    transport.protocol = first
    for piece in case.pieces:
        if transport.end in ("close", "abort"):
            break
        cast("Any", transport.protocol).data_received(piece)
        site.loop.run()
        for asked in site.root.asked:
            if asked.complete and not asked.exchange.started and not asked.exchange.abandoned:
                asked.answer(b"hello")
        site.loop.run()
    cast("Any", transport.protocol).connection_lost(None)
    site.loop.run()
    assert site.open == set()
    assert all(asked.exchange.started or asked.exchange.abandoned for asked in site.root.asked)
