"""HTTP/2: each test is a client that speaks it to a proxy whose replicas pretend."""

import asyncio
from typing import Any, NamedTuple, cast

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.handle.outgoing import Hints
from salver.proxy.http import HttpConnection
from salver.proxy.http2 import Http2Connection
from salver.proxy.limits import MAX_RESETS_PER_SWEEP, UPLOAD_WINDOW_SIZE_BYTES
from salver.proxy.upgrades import PREFACE
from salver.schema.http import HTTPOptions
from tests.unit.proxy.doubles import Asked, Browser, FakeSite, Transport, parsed, request

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "here"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
PIECE = b"x" * 16384


class Answer(NamedTuple):
    """What came on one stream."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]
    ended: bool
    reset: int | None


class Client:
    """A client and its connection."""

    def __init__(self, site: FakeSite | None = None) -> None:
        self.site = site or FakeSite()
        self.transport = Transport()
        first = HttpConnection(self.site, cast("asyncio.AbstractEventLoop", self.site.loop))
        first.connection_made(self.transport)
        self.transport.protocol = first
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self._read = 0
        self.exchange()

    @property
    def connection(self) -> Http2Connection:
        assert isinstance(self.transport.protocol, Http2Connection)
        return self.transport.protocol

    @property
    def asked(self) -> list[Asked]:
        return self.site.root.asked

    def exchange(self) -> None:
        """Send what there is, and read what comes, until nobody has anything to say."""
        while True:
            data = self.h2.data_to_send()
            if data:
                cast("Any", self.transport.protocol).data_received(data)
            self.site.loop.run()
            news = self.transport.written[self._read :]
            self._read += len(news)
            if news:
                self.events += self.h2.receive_data(news)
            elif not data:
                return

    def ask(self, headers: list[tuple[str, str]] = GET, body: bytes | None = None, *, end: bool = True) -> int:
        """Send a request; return its stream."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        self.exchange()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.exchange()

    def answer(self, stream: int) -> Answer:
        """Return what has come on a stream."""
        self.exchange()
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        body, ended, reset = b"", False, None
        for event in self.events:
            if getattr(event, "stream_id", None) != stream:
                continue
            match event:
                case h2.events.ResponseReceived():
                    headers = cast("dict[str, str]", dict(cast("Any", event.headers)))
                case h2.events.DataReceived():
                    body += event.data or b""
                case h2.events.TrailersReceived():
                    trailers = cast("dict[str, str]", dict(cast("Any", event.headers)))
                case h2.events.StreamEnded():
                    ended = True
                case h2.events.StreamReset():
                    reset = int(event.error_code or 0)
        return Answer(int(headers.pop(":status", 0)), headers, body, trailers, ended, reset)


def test_a_request_and_its_answer() -> None:
    client = Client()
    stream = client.ask([*GET[:3], (":path", "/a/b?c=d"), ("x-y", "z"), ("cookie", "a=1"), ("cookie", "b=2")])
    [asked] = client.asked
    assert (asked.head.method, asked.head.path, asked.head.query, asked.head.http_version) == (
        "GET",
        "/a/b",
        b"c=d",
        "2",
    )
    assert asked.head.headers == [(b"host", b"here"), (b"x-y", b"z"), (b"cookie", b"a=1; b=2")]
    assert asked.complete
    asked.answer(b"hello", 201, [(b"X-A", b"b"), (b"connection", b"close"), (b"content-length", b"5")])
    answer = client.answer(stream)
    assert (answer.status, answer.body, answer.ended, answer.reset) == (201, b"hello", True, None)
    assert answer.headers["x-a"] == "b"
    assert answer.headers["content-length"] == "5"
    assert "connection" not in answer.headers
    assert len(answer.headers["x-request-id"]) > 8


def test_many_requests_at_once_are_answered_as_they_are_ready() -> None:
    client = Client()
    streams = [client.ask() for _ in range(20)]
    for number in reversed(range(20)):
        client.asked[number].answer(b"%d" % number)
    assert [client.answer(stream).body for stream in streams] == [b"%d" % number for number in range(20)]


def test_the_request_id_is_the_clients() -> None:
    client = Client()
    stream = client.ask([*GET, ("x-request-id", "mine")])
    assert client.asked[0].head.request_id == "mine"
    client.asked[0].answer()
    assert client.answer(stream).headers["x-request-id"] == "mine"


def test_a_body_that_comes_at_once_is_sent_in_one_piece() -> None:
    client = Client()
    client.ask([*POST, ("content-length", "3")], b"abc")
    assert (client.asked[0].body, client.asked[0].complete) == (b"abc", True)


def test_a_long_body_is_sent_on_while_it_comes() -> None:
    client = Client()
    stream = client.ask(POST, b"abc", end=False)
    [asked] = client.asked
    assert (asked.body, asked.complete) == (b"abc", False)
    client.send(stream, b"def", end=True)
    assert (asked.body, asked.complete) == (b"abcdef", True)
    asked.answer(b"6")
    assert client.answer(stream).body == b"6"


def test_a_client_may_send_no_more_than_the_replica_takes_and_others_go_on() -> None:
    client = Client()
    stream = client.ask(POST, PIECE, end=False)
    [asked] = client.asked
    sent = len(PIECE)
    while (room := client.h2.local_flow_control_window(stream)) > 0 and sent < 10 * UPLOAD_WINDOW_SIZE_BYTES:
        client.send(stream, PIECE[:room])
        sent += min(room, len(PIECE))
    assert UPLOAD_WINDOW_SIZE_BYTES <= sent <= 2 * UPLOAD_WINDOW_SIZE_BYTES
    other = client.ask(POST, b"abc")
    client.asked[1].answer(b"other")
    assert client.answer(other).body == b"other"
    asked.grant(sent)
    client.exchange()
    assert client.h2.local_flow_control_window(stream) > 0


def test_an_answer_waits_for_a_client_that_reads_slowly_and_tells_the_replica() -> None:
    client = Client()
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    client.exchange()
    stream = client.ask()
    [asked] = client.asked
    asked.start(b"0123456789abcdef")
    assert client.answer(stream).body == b"0123456789"
    asked.more(b"x" * 300_000)
    assert asked.replica.credit == 0
    client.h2.increment_flow_control_window(1_000_000, stream)
    client.h2.increment_flow_control_window(1_000_000)
    client.exchange()
    assert len(client.answer(stream).body) == 16 + 300_000
    assert asked.replica.credit == 16 + 300_000
    asked.end(b"end")
    assert (client.answer(stream).body[-3:], client.answer(stream).ended) == (b"end", True)


def test_trailers_follow_the_body() -> None:
    client = Client()
    stream = client.ask()
    client.asked[0].start(b"abc")
    client.asked[0].end(trailers=[(b"X-Sum", b"1: 2")])
    answer = client.answer(stream)
    assert (answer.body, answer.trailers, answer.ended) == (b"abc", {"x-sum": "1: 2"}, True)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(status: int) -> None:
    client = Client()
    stream = client.ask()
    client.asked[0].answer(b"", status, [])
    answer = client.answer(stream)
    assert (answer.status, answer.body, answer.ended, "content-length" in answer.headers) == (status, b"", True, False)


def test_head_has_the_length_of_the_body_that_is_not_sent() -> None:
    client = Client()
    stream = client.ask([(":method", "HEAD"), *GET[1:]])
    client.asked[0].answer(b"hello", 200, [(b"content-length", b"5")])
    answer = client.answer(stream)
    assert (answer.headers["content-length"], answer.body, answer.ended) == ("5", b"", True)


def test_a_client_that_expects_a_word_gets_it() -> None:
    client = Client()
    client.ask([*POST, ("expect", "100-continue"), ("content-length", "3")], end=False)
    assert any(isinstance(event, h2.events.InformationalResponseReceived) for event in client.events)


def test_a_reset_cancels_the_request_and_no_other() -> None:
    client = Client()
    first, second = client.ask(), client.ask()
    client.h2.reset_stream(first)
    client.exchange()
    assert [asked.exchange.abandoned for asked in client.asked] == [True, False]
    client.asked[1].answer(b"still here")
    assert client.answer(second).body == b"still here"


def test_a_client_that_leaves_cancels_all() -> None:
    client = Client()
    client.ask()
    client.ask()
    client.connection.connection_lost(None)
    assert all(asked.exchange.abandoned for asked in client.asked)
    assert client.site.open == set()


def test_who_opens_and_resets_without_end_is_sent_away() -> None:
    client = Client()
    for _ in range(MAX_RESETS_PER_SWEEP + 1):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, GET, end_stream=True)
        client.h2.reset_stream(stream)
        if len(client.h2.data_to_send(0) or b"") == 0:
            client.exchange()
    client.exchange()
    assert client.transport.end == "close"
    assert all(asked.exchange.abandoned for asked in client.asked)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([*GET[:3], (":path", "/" + "x" * 20_000)], 414),
        ([*GET, *((f"x-{number}", "y") for number in range(200))], 431),
        ([*GET, ("x", "y" * 40_000)], 431),
        ([(":method", "CONNECT"), (":authority", "a:1")], 501),
        ([*GET[:3], (":path", "/ä")], 400),
    ],
    ids=["target", "many headers", "large headers", "CONNECT", "path"],
)
def test_what_is_refused_is_answered_and_the_connection_goes_on(headers: list[tuple[str, str]], status: int) -> None:
    client = Client()
    stream = client.ask(headers)
    assert client.answer(stream).status == status
    assert client.asked == []
    client.ask()
    assert len(client.asked) == 1


def test_the_proxys_own_answers() -> None:
    client = Client()
    stream = client.ask([*GET[:3], (":path", "/-/healthz")])
    assert client.answer(stream).body == b"success"


def test_an_answer_that_breaks_off_resets_its_stream_only() -> None:
    client = Client()
    first, second = client.ask(), client.ask()
    client.asked[0].start(b"abc")
    client.asked[0].error()
    client.asked[1].answer(b"fine")
    assert client.answer(first).reset is not None
    assert client.answer(second).body == b"fine"


def test_an_answer_before_the_end_of_the_body_ends_the_stream() -> None:
    client = Client()
    stream = client.ask(POST, b"abc", end=False)
    client.asked[0].answer(b"enough")
    answer = client.answer(stream)
    assert (answer.status, answer.body, answer.ended) == (200, b"enough", True)
    again = client.ask()
    client.asked[1].answer(b"again")
    assert client.answer(again).body == b"again"


def test_a_request_that_takes_too_long_is_timed_out() -> None:
    site = FakeSite()
    site.options = HTTPOptions(request_timeout_s=5)
    client = Client(site)
    stream = client.ask()
    client.site.loop.pass_time(6)
    assert client.answer(stream).status == 408
    assert client.asked[0].exchange.abandoned


@pytest.mark.parametrize("model_header", ["serve_multiplexed_model_id", "serve-multiplexed-model-id"])
@pytest.mark.parametrize("session_header", ["x-session-id", "x_session_id"])
def test_the_model_and_the_session_reach_router_and_replica(model_header: str, session_header: str) -> None:
    client = Client()
    client.ask([*GET, (model_header, "m1"), (session_header, "s1")])
    [asked] = client.asked
    assert asked.exchange.hints == Hints("m1", "s1")
    assert (asked.head.multiplexed_model_id, asked.head.session_id) == ("m1", "s1")


def test_the_priority_header_reaches_router_and_replica() -> None:
    client = Client()
    client.ask([*GET, ("priority", "u=5"), ("priority", "i")])
    [asked] = client.asked
    assert asked.exchange.hints.urgency == asked.head.urgency == 5


def test_a_client_says_how_long_it_waits_and_whether_its_leaving_matters() -> None:
    client = Client()
    stream = client.ask([*GET, ("x-request-timeout-seconds", "3")])
    client.ask([*GET, ("x-request-disconnect-disabled", "?1")])
    client.site.loop.pass_time(4)
    assert client.answer(stream).status == 408
    assert [asked.exchange.abandoned for asked in client.asked] == [True, False]
    client.connection.connection_lost(None)
    assert not client.asked[1].exchange.abandoned
    assert len(client.site.unattended) == 1
    client.asked[1].answer(b"to nobody")
    assert client.site.unattended == set()


def test_an_idle_connection_is_closed_in_the_end() -> None:
    client = Client()
    client.connection.look(client.site.loop.now + 89)
    assert client.transport.end == ""
    client.connection.look(client.site.loop.now + 91)
    client.exchange()
    assert client.transport.end == "close"
    assert any(isinstance(event, h2.events.ConnectionTerminated) for event in client.events)


def test_a_connection_that_is_to_finish_answers_what_was_asked() -> None:
    client = Client()
    client.ask()
    client.connection.finish()
    assert client.transport.end == ""
    client.asked[0].answer(b"last")
    client.site.loop.run()
    assert client.transport.end == "close"
    # h2's own client knows no connection that ends later; the frames are there all the same.
    assert b"last" in client.transport.written


@given(st.lists(st.binary(min_size=1, max_size=64), max_size=8))
def test_any_bytes_end_the_connection_or_are_waited_for(pieces: list[bytes]) -> None:
    client = Client()
    for piece in pieces:
        client.connection.data_received(piece)
        client.site.loop.run()
    assert client.transport.end in ("", "close")
    assert client.asked == []


@given(st.integers(0, 1 << 30), st.binary(min_size=1, max_size=4))
def test_a_damaged_conversation_never_raises(place: int, damage: bytes) -> None:
    client = Client()
    client.h2.send_headers(1, POST)
    client.h2.send_data(1, b"abc" * 100, end_stream=True)
    data = bytearray(client.h2.data_to_send())
    at = place % len(data)
    data[at : at + len(damage)] = damage
    client.connection.data_received(bytes(data))
    client.site.loop.run()
    assert client.transport.end in ("", "close")


@pytest.mark.parametrize("first_size", [1, 20, 38, 39, 60])
def test_http1_goes_on_being_http1(first_size: int) -> None:
    browser = Browser()
    data = request("/-/healthz") + PREFACE
    browser.send(data[:first_size], data[first_size:])
    assert [answer.status for answer in parsed(browser.news())] == [200, 400]
    assert browser.transport.protocol is None
