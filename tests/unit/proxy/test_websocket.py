"""A client's WebSocket and its replica, which both only pretend."""

from typing import Any

import msgspec
import pytest

from salver.proxy.http import HttpConnection
from salver.proxy.limits import (
    CLOSE_TIMEOUT_S,
    MAX_OWED_PONGS,
    PING_PERIOD_S,
    PING_TIMEOUT_S,
    SOCKET_SLICE_SIZE_BYTES,
)
from salver.proxy.socket_exchange import SocketExchange
from salver.proxy.socket_frames import Message
from salver.proxy.websocket import WebSocketConnection
from salver.schema.errors import BackPressureError
from salver.schema.http import HTTPOptions
from salver.transport.wire import (
    ACCEPTED,
    BYTES,
    CHUNK,
    CLOSE,
    CREDIT,
    END,
    ERROR,
    MESSAGE_OVERHEAD_BYTES,
    MORE,
    RESPONSE,
    SOCKET,
    SOCKET_WINDOW_SIZE_BYTES,
    TEXT,
    AcceptedHead,
    CloseHead,
    CreditHead,
    HttpHead,
    ResponseHead,
)
from tests.unit.proxy.doubles import DATE, Answer, Browser, FakeSite, parsed, request
from tests.unit.proxy.socket_clients import DEFLATE, SocketClient, close_frame, frame

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket")
WINDOW = SOCKET_WINDOW_SIZE_BYTES

encode = msgspec.msgpack.encode


def handshake(target: str = "/ws", *headers: str) -> bytes:
    """Return a proper handshake."""
    return request(target, *HANDSHAKE, KEY, VERSION, *headers)


class Replica:
    """The replica's end: what it was sent, and what it says.

    Attributes:
        messages: The client's.
        closes: How the client closed.
        credit: What it was granted.
    """

    def __init__(self, exchange: SocketExchange) -> None:
        self.exchange = exchange
        self.closed = False
        self.head: HttpHead
        self.messages: list[Message] = []
        self.closes: list[CloseHead] = []
        self.credit = 0

    @property
    def connection(self) -> "Replica":
        return self

    def send(self, kind: int, _stream: int, header: bytes = b"", body: bytes = b"", _flags: int = 0) -> None:
        if kind == SOCKET:
            self.head = msgspec.msgpack.decode(header, type=HttpHead)
        elif kind == CLOSE:
            self.closes.append(msgspec.msgpack.decode(header, type=CloseHead))
        elif kind == CREDIT:
            self.credit += msgspec.msgpack.decode(header, type=CreditHead).size_bytes
        else:
            self.messages.append(Message(kind, body))

    def say(self, kind: int, head: Any = None, body: bytes = b"", flags: int = 0) -> None:
        """Send a frame."""
        if not self.exchange.abandoned:
            self.exchange.on_frame(kind, flags, 0, b"" if head is None else encode(head), body)

    def accept(self, subprotocol: str | None = None, *headers: tuple[bytes, bytes]) -> None:
        """Accept."""
        self.say(ACCEPTED, AcceptedHead(subprotocol, list(headers)))

    def close(self, code: int, reason: str = "") -> None:
        """Close."""
        self.say(CLOSE, CloseHead(code, reason))


class SocketRouter:
    """Gives each handshake a replica of its own; part of what StubRouter does."""

    def __init__(self, site: FakeSite, refusal: BackPressureError | None = None) -> None:
        self.replicas: list[Replica] = []
        self.cancelled: list[SocketExchange] = []
        self.refusal = refusal
        site.root.route = self.route  # type: ignore[method-assign, assignment]
        site.root.cancel = self.cancel  # type: ignore[method-assign, assignment]

    def route(self, exchange: SocketExchange) -> None:
        if self.refusal is not None:
            exchange.abandoned = True
            exchange.on_refused(self.refusal)
            return
        replica = Replica(exchange)
        exchange.channel = replica  # type: ignore[assignment]
        exchange.write(replica, 1, 0)  # type: ignore[arg-type]
        self.replicas.append(replica)

    def cancel(self, exchange: SocketExchange) -> None:
        assert not exchange.abandoned
        exchange.abandoned = True
        self.cancelled.append(exchange)


class Rig(Browser):
    """A client, and the replica that its handshake reached."""

    def __init__(self, refusal: BackPressureError | None = None, **options: Any) -> None:
        super().__init__()
        self.site.options = HTTPOptions(**options)
        self.router = SocketRouter(self.site, refusal)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            protocol = self.transport.protocol or self.connection
            assert isinstance(protocol, HttpConnection | WebSocketConnection)
            protocol.data_received(piece)
            self.settle()

    @property
    def socket(self) -> WebSocketConnection:
        assert isinstance(self.transport.protocol, WebSocketConnection)
        return self.transport.protocol

    @property
    def replica(self) -> Replica:
        return self.router.replicas[-1]

    def leave(self) -> None:
        self.socket.connection_lost(None)

    def wait(self, seconds: float) -> None:
        self.site.loop.now += seconds
        for each in list(self.site.open):
            each.look(self.site.loop.now)

    def close_code(self) -> int | None:
        """Return the code that the client reads now."""
        client = SocketClient()
        client.read(self.news())
        return client.closed_with[0] if client.closed_with else None


def opened(*headers: str, **options: Any) -> Rig:
    """Return an open WebSocket."""
    rig = Rig(**options)
    rig.send(handshake("/ws", *headers))
    rig.replica.accept()
    assert rig.news().startswith(b"HTTP/1.1 101 ")
    return rig


def test_a_handshake_reaches_the_application_and_is_answered_when_it_accepts() -> None:
    rig = Rig()
    rig.send(handshake("/ws?q=1", "X-Request-ID: mine", "Sec-WebSocket-Protocol: a, b"))
    head = rig.replica.head
    assert (head.method, head.path, head.query, head.request_id) == ("GET", "/ws", b"q=1", "mine")
    assert (b"sec-websocket-protocol", b"a, b") in head.headers
    assert rig.news() == b""
    assert rig.site.open == {rig.socket}
    rig.replica.accept("b", (b"x-more", b"1"), (b"Sec-WebSocket-Accept", b"forged"), (b"x-request-id", b"forged"))
    text = rig.news()
    assert text.endswith(DATE + b"\r\n")
    [answer] = parsed(text)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer.headers["sec-websocket-protocol"] == "b"
    assert (answer.headers["connection"], answer.headers["upgrade"]) == ("upgrade", "websocket")
    assert (answer.headers["x-request-id"], answer.headers["x-more"]) == ("mine", "1")
    assert "sec-websocket-extensions" not in answer.headers


def test_messages_go_both_ways() -> None:
    rig = opened()
    rig.send(frame(1, b"one") + frame(2, b"t", fin=False), frame(0, b"wo"))
    assert rig.replica.messages == [Message(TEXT, b"one"), Message(BYTES, b"two")]
    rig.replica.say(TEXT, body=b"three")
    rig.replica.say(BYTES, body=b"four")
    assert rig.news() == b"\x81\x05three\x82\x04four"


def test_compression_is_offered_and_taken() -> None:
    rig = Rig()
    rig.send(handshake("/", f"Sec-WebSocket-Extensions: {DEFLATE.decode()}"))
    rig.replica.accept()
    [answer] = parsed(rig.news())
    client = SocketClient(answer.headers["sec-websocket-extensions"])
    message = Message(TEXT, b"a" * 10_000)
    data = client.message(message)
    assert len(data) < 200
    rig.send(data)
    assert rig.replica.messages == [message]
    rig.replica.say(TEXT, body=message.body)
    assert client.read(rig.news()) == [message]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((VERSION,), 400),
        ((KEY,), 400),
        ((KEY, "Sec-WebSocket-Version: 8"), 426),
        ((KEY, VERSION, "Sec-WebSocket-Extensions: ="), 400),
        ((KEY, VERSION, "Sec-WebSocket-Protocol: ()"), 400),
    ],
)
def test_what_is_no_handshake_is_refused_and_reaches_nobody(headers: tuple[str, ...], status: int) -> None:
    rig = Rig()
    rig.send(request("/ws", *HANDSHAKE, "X-Request-ID: mine", *headers) + frame(1, b"early"))
    answer = rig.answer()
    assert (answer.status, answer.headers["x-request-id"]) == (status, "mine")
    assert rig.router.replicas == []
    assert rig.end == "eof"
    if status == 426:
        assert (answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == ("websocket", "13")
        assert "upgrade" in answer.headers["connection"]
    rig.send(b"more")
    rig.wait(CLOSE_TIMEOUT_S + 1)
    assert rig.end == "abort"
    rig.leave()
    assert (rig.site.open, rig.router.cancelled) == (set(), [])


def test_paths_without_an_application_are_answered_as_http() -> None:
    rig = Rig()
    rig.send(handshake("/-/healthz"))
    assert (rig.answer().status, rig.end) == (200, "close")


def test_a_handshake_waits_for_the_answers_before_it_and_what_follows_waits_with_it() -> None:
    site = FakeSite()
    browser = Browser(site)
    browser.send(request("/") + handshake("/") + frame(1, b"early"))
    assert not browser.transport.reading
    browser.send(frame(2, b"later"))
    [asked] = browser.asked
    router = SocketRouter(site)
    asked.answer(b"x")
    assert browser.answer().body == b"x"
    [replica] = router.replicas
    assert replica.messages == []
    replica.accept()
    assert replica.messages == [Message(TEXT, b"early"), Message(BYTES, b"later")]
    assert browser.transport.reading


def test_a_little_that_comes_before_the_answer_is_kept_and_then_nothing_more_is_read() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.send(frame(1, b"early"))
    assert (rig.transport.reading, rig.replica.messages) == (True, [])
    more = bytes(SOCKET_SLICE_SIZE_BYTES)
    rig.send(frame(2, more))
    assert not rig.transport.reading
    rig.replica.accept()
    assert (rig.transport.reading, rig.replica.messages) == (True, [Message(TEXT, b"early"), Message(BYTES, more)])


def test_a_refusal_reads_on_so_that_the_client_learns_why() -> None:
    rig = Rig(request_timeout_s=5)
    rig.send(handshake())
    rig.send(bytes(SOCKET_SLICE_SIZE_BYTES))
    assert not rig.transport.reading
    rig.wait(5.1)
    assert (rig.answer().status, rig.end, rig.transport.reading) == (408, "eof", True)


# Answers that are no acceptance


def test_a_denial_of_the_application_is_its_http_answer() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.replica.say(RESPONSE, ResponseHead(401, [(b"www-authenticate", b"Basic")]), b"who?")
    answer = rig.answer()
    assert answer == Answer(401, answer.headers, b"who?")
    assert (answer.headers["connection"], answer.headers["www-authenticate"]) == ("close", "Basic")
    assert rig.end == "eof"
    rig.leave()
    assert rig.router.cancelled == []


def test_a_denial_in_pieces_ends_with_the_connection() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.replica.say(RESPONSE, ResponseHead(403, []), b"a", MORE)
    rig.replica.say(CHUNK, body=bytes(WINDOW))
    assert rig.replica.credit == WINDOW + 1
    rig.replica.say(END, body=b"z")
    head, _, body = rig.news().partition(b"\r\n\r\n")
    assert b"content-length" not in head
    assert (len(body), body[-1:], rig.end) == (WINDOW + 2, b"z", "eof")


def test_a_denial_that_breaks_off_is_cut() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.replica.say(RESPONSE, ResponseHead(403, []), b"a", MORE)
    rig.replica.say(ERROR)
    assert rig.end == "abort"


def test_a_refusal_of_the_router_is_the_answer_that_http_has() -> None:
    rig = Rig(BackPressureError(1, 1, 429, 1.5))
    rig.send(handshake())
    answer = rig.answer()
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    rig.leave()
    assert rig.router.cancelled == []


def test_an_answer_that_is_no_http_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    for head in (AcceptedHead("a\r\nb", []), AcceptedHead(None, [(b"x", b"\n")]), AcceptedHead("☃", [])):
        rig = Rig()
        rig.send(handshake())
        rig.replica.say(ACCEPTED, head)
        assert rig.answer().status == 500
        assert len(rig.router.cancelled) == 1
    rig = Rig()
    rig.send(handshake())
    rig.replica.say(RESPONSE, ResponseHead(42, []))
    assert rig.answer().status == 500
    assert "cannot be written as HTTP" in caplog.text


def test_a_replica_that_dies_may_be_replaced_until_it_has_answered() -> None:
    rig = Rig()
    rig.send(handshake("/", "X-Request-ID: mine"))
    exchange = rig.replica.exchange
    assert exchange.may_repeat()
    exchange.on_lost("Api#1")
    answer = rig.answer()
    assert answer.status == 502
    assert b"mine" in answer.body
    rig = opened("X-Request-ID: mine")
    exchange = rig.replica.exchange
    assert not exchange.may_repeat()
    exchange.on_lost("Api#1")
    client = SocketClient()
    client.read(rig.news())
    assert client.closed_with == (1011, "request mine: its replica died")


# Closing


def test_a_close_of_the_client_reaches_the_application_once() -> None:
    rig = opened()
    rig.send(frame(1, b"last") + close_frame(4001, b"bye"))
    assert rig.close_code() == 4001
    assert rig.end == "close"
    rig.leave()
    assert rig.replica.messages == [Message(TEXT, b"last")]
    assert rig.replica.closes == [CloseHead(4001, "bye")]
    assert rig.router.cancelled == []
    rig.replica.say(TEXT, body=b"nobody hears")
    rig.replica.say(END)
    assert rig.site.open == set()


def test_a_client_that_vanishes_is_told_to_the_application_and_nothing_is_cancelled() -> None:
    rig = opened()
    rig.socket.eof_received()
    rig.leave()
    assert rig.replica.closes == [CloseHead(1006, "")]
    assert rig.router.cancelled == []


def test_a_client_that_vanishes_before_the_answer_cancels_the_handler() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.socket.eof_received()
    rig.leave()
    assert len(rig.router.cancelled) == 1
    assert rig.replica.closes == []


def test_a_close_of_the_application_waits_for_the_clients_answer() -> None:
    rig = opened()
    rig.replica.close(4002, "enough")
    assert rig.close_code() == 4002
    assert rig.end == ""
    rig.send(frame(1, b"too late"), close_frame(4002))
    assert rig.end == "close"
    assert (rig.replica.messages, rig.replica.closes) == ([], [])


@pytest.mark.parametrize("answers", [False, True])
def test_a_client_that_never_ends_is_cut(answers: bool) -> None:
    rig = opened()
    rig.replica.close(1000)
    if answers:
        rig.send(close_frame(1000))
    rig.wait(CLOSE_TIMEOUT_S - 1)
    assert rig.end == ("close" if answers else "")
    rig.wait(1.1)
    assert rig.end == "abort"


def test_a_close_code_that_must_not_be_sent_is_1011() -> None:
    rig = opened()
    rig.replica.close(1005)
    assert rig.close_code() == 1011


def test_a_mistake_of_the_client_closes_and_what_it_goes_on_sending_is_read() -> None:
    rig = opened()
    rig.send(frame(1, b"good") + frame(3))
    assert rig.close_code() == 1002
    assert rig.end == "eof"
    assert rig.replica.closes == [CloseHead(1002, "invalid opcode")]
    rig.send(frame(1, b"more"))
    assert rig.transport.reading
    assert rig.replica.messages == [Message(TEXT, b"good")]
    rig.wait(CLOSE_TIMEOUT_S + 1)
    assert rig.end == "abort"


@pytest.mark.parametrize("kind", [END, ERROR])
def test_an_end_without_a_close_is_1011(kind: int) -> None:
    rig = opened()
    rig.replica.say(kind)
    assert rig.close_code() == 1011


# Credit


def test_a_replica_that_takes_nothing_stops_the_reading() -> None:
    rig = opened()
    size = WINDOW // 4
    for _ in range(4):
        rig.send(frame(2, bytes(size)))
    assert not rig.transport.reading
    rig.send(frame(1, b"was on its way"))
    assert len(rig.replica.messages) == 4
    rig.replica.say(CREDIT, CreditHead(WINDOW))
    assert rig.transport.reading
    assert rig.replica.messages[4] == Message(TEXT, b"was on its way")


def test_empty_messages_use_credit_too() -> None:
    rig = opened()
    rig.send(frame(1) * (WINDOW // MESSAGE_OVERHEAD_BYTES))
    assert not rig.transport.reading


def test_a_message_larger_than_the_window_passes() -> None:
    rig = opened()
    rig.send(frame(2, bytes(3 * WINDOW)))
    assert [len(each.body) for each in rig.replica.messages] == [3 * WINDOW]
    assert not rig.transport.reading
    rig.replica.say(CREDIT, CreditHead(2 * WINDOW))
    assert not rig.transport.reading
    rig.replica.say(CREDIT, CreditHead(2 * WINDOW))
    assert rig.transport.reading


def test_packed_messages_are_unpacked_only_as_fast_as_the_replica_takes_them() -> None:
    rig = Rig()
    rig.send(handshake("/", f"Sec-WebSocket-Extensions: {DEFLATE.decode()}"))
    rig.replica.accept()
    client = SocketClient(parsed(rig.news())[0].headers["sec-websocket-extensions"])
    data = b"".join(client.message(Message(BYTES, bytes(8 << 20))) for _ in range(16))
    assert len(data) > 4 * SOCKET_SLICE_SIZE_BYTES
    rig.send(data)
    assert 0 < len(rig.replica.messages) < 4
    while len(rig.replica.messages) < 16:
        before = len(rig.replica.messages)
        rig.replica.say(CREDIT, CreditHead(32 << 20))
        assert len(rig.replica.messages) > before
    assert rig.transport.reading


def test_a_client_that_reads_slowly_is_granted_nothing_until_it_reads() -> None:
    rig = opened()
    rig.replica.say(BYTES, body=bytes(WINDOW // 2))
    assert rig.replica.credit == WINDOW // 2 + MESSAGE_OVERHEAD_BYTES
    rig.socket.pause_writing()
    rig.replica.say(BYTES, body=bytes(WINDOW // 2))
    assert rig.replica.credit < WINDOW
    rig.socket.resume_writing()
    assert rig.replica.credit == WINDOW + 2 * MESSAGE_OVERHEAD_BYTES


def test_a_client_that_reads_nothing_may_not_go_on_pinging() -> None:
    rig = opened()
    rig.socket.pause_writing()
    rig.send(frame(9) * MAX_OWED_PONGS)
    assert rig.transport.reading
    rig.send(frame(9) + frame(1, b"hello"))
    assert not rig.transport.reading
    rig.socket.resume_writing()
    assert rig.transport.reading


def test_the_end_of_a_client_whose_replica_takes_nothing_is_seen_when_it_does() -> None:
    rig = opened()
    rig.send(frame(2, bytes(2 * WINDOW)), close_frame(1000))
    assert rig.replica.closes == []
    rig.replica.say(CREDIT, CreditHead(2 * WINDOW))
    assert rig.replica.closes == [CloseHead(1000, "")]
    assert rig.end == "close"


# Time


def test_a_silent_client_is_asked_for_a_sign_of_life_and_closed_without_one() -> None:
    rig = opened()
    rig.wait(PING_PERIOD_S - 1)
    assert rig.news() == b""
    rig.wait(2)
    assert rig.news() == b"\x89\x00"
    rig.wait(PING_TIMEOUT_S - 1)
    rig.send(frame(10))
    rig.wait(PING_PERIOD_S - 1)
    assert rig.news() == b""
    rig.wait(2)
    assert rig.news() == b"\x89\x00"
    rig.wait(PING_TIMEOUT_S + 1)
    assert rig.close_code() == 1011
    assert rig.replica.closes == [CloseHead(1011, "keepalive ping timeout")]


def test_a_client_from_which_nothing_is_read_is_not_asked() -> None:
    rig = opened()
    rig.send(frame(2, bytes(WINDOW)))
    for _ in range(10):
        rig.wait(PING_PERIOD_S)
    rig.replica.say(CREDIT, CreditHead(WINDOW))
    rig.wait(1)
    assert rig.news() == b""


def test_a_handler_that_takes_too_long_before_it_answers_is_a_408() -> None:
    rig = Rig(request_timeout_s=5)
    rig.send(handshake("/", "X-Request-ID: mine"))
    rig.wait(5.1)
    answer = rig.answer()
    assert (answer.status, answer.body) == (408, b"Request mine timed out after 5.0s.")
    assert len(rig.router.cancelled) == 1
    rig.leave()


def test_a_websocket_that_lasts_too_long_is_closed_and_its_handler_cancelled() -> None:
    rig = opened("X-Request-ID: mine", request_timeout_s=5)
    rig.wait(5.1)
    client = SocketClient()
    client.read(rig.news())
    assert client.closed_with == (1008, "Request mine timed out after 5.0s.")
    assert (len(rig.router.cancelled), rig.replica.closes) == (1, [])
    rig.leave()


def test_a_denial_that_takes_too_long_is_cut() -> None:
    rig = Rig(request_timeout_s=5)
    rig.send(handshake())
    rig.replica.say(RESPONSE, ResponseHead(403, []), b"a", MORE)
    rig.wait(5.1)
    assert (rig.end, len(rig.router.cancelled)) == ("abort", 1)


def test_a_drain_sends_clients_and_applications_elsewhere() -> None:
    rig = opened()
    rig.site.draining = True
    rig.socket.finish()
    assert rig.close_code() == 1001
    assert rig.replica.closes == [CloseHead(1001, "")]
    rig.send(close_frame(1001))
    assert rig.end == "close"


def test_a_handshake_that_is_accepted_during_a_drain_is_closed_at_once() -> None:
    rig = Rig()
    rig.send(handshake())
    rig.site.draining = True
    rig.socket.finish()
    assert rig.news() == b""
    rig.replica.accept()
    head, _, rest = rig.news().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    client = SocketClient()
    client.read(rest)
    assert client.closed_with == (1001, "")
