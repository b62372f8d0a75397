"""Requests in: what reaches an application, in which order, and what is refused."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from salver.handle.outgoing import Hints
from salver.proxy import http
from salver.proxy.limits import (
    MAX_HEADERS,
    MAX_HEADERS_SIZE_BYTES,
    MAX_PIPELINED,
    MAX_REQUEST_ID_SIZE_BYTES,
    MAX_TARGET_SIZE_BYTES,
)
from tests.unit.proxy.doubles import DATE, Browser, FakeSite, parsed, request


def test_a_request_reaches_the_application_whole() -> None:
    browser = Browser()
    browser.send(request("/app/x%20y?q=1", "X-Test: a", method="POST", body=b"body"))
    [asked] = browser.site.app.asked
    head = asked.head
    assert (head.method, head.path, head.raw_path, head.query) == ("POST", "/app/x y", "/app/x%20y", b"q=1")
    assert (head.root_path, head.route, head.http_version, head.client) == ("/app", "/app", "1.1", ("1.2.3.4", 5678))
    assert head.headers == [(b"host", b"here"), (b"x-test", b"a"), (b"content-length", b"4")]
    assert asked.body == b"body"


@pytest.mark.parametrize("model_header", ["serve_multiplexed_model_id", "Serve-Multiplexed-Model-ID"])
@pytest.mark.parametrize("session_header", ["x-session-id", "X_Session_Id"])
def test_the_model_and_the_session_reach_router_and_replica(model_header: str, session_header: str) -> None:
    asked = Browser().get("/", f"{model_header}: m1 ", f"{session_header}: s1")
    assert asked.exchange.hints == Hints("m1", "s1")
    assert (asked.head.multiplexed_model_id, asked.head.session_id) == ("m1", "s1")


@pytest.mark.parametrize(("header", "urgency"), [("u=1, i", 1), ("u=9", 3), ("i", 3)])
def test_the_priority_header_reaches_router_and_replica(header: str, urgency: int) -> None:
    asked = Browser().get("/", f"Priority: {header}")
    assert asked.exchange.hints.urgency == asked.head.urgency == urgency


def test_an_answer_reaches_the_client_whole() -> None:
    browser = Browser()
    browser.get("/", "X-Request-ID: abc").answer(b"hello", 201)
    assert browser.news() == (
        b"HTTP/1.1 201 Created\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nx-request-id: abc\r\n"
        + DATE
        + b"\r\nhello"
    )
    assert browser.end == ""


def test_a_path_that_nobody_has_is_not_found() -> None:
    browser = Browser()
    browser.site.places.table._matches.clear()
    browser.send(request("/zzz"))
    answer = browser.answer()
    assert (answer.status, answer.body[:21]) == (404, b"Path '/zzz' not found")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_proxys_own_paths_come_before_all_applications() -> None:
    browser = Browser()
    browser.send(request("/-/healthz") + request("/-/other"))
    assert browser.answer().body == b"success"
    assert [asked.head.path for asked in browser.asked] == ["/-/other"]


# Connections


def test_a_connection_carries_one_request_after_another() -> None:
    browser = Browser()
    for number in range(3):
        browser.get(f"/{number}").answer(b"%d" % number)
        assert browser.answer().body == b"%d" % number
    assert browser.end == ""


@pytest.mark.parametrize(
    ("version", "headers", "end", "connection"),
    [
        ("1.1", [], "", None),
        ("1.1", ["Connection: close"], "close", "close"),
        ("1.1", ["Connection: keep-alive"], "", None),
        ("1.0", [], "close", "close"),
        ("1.0", ["Connection: keep-alive"], "", "keep-alive"),
    ],
)
def test_the_client_decides_whether_the_connection_stays(
    version: str, headers: list[str], end: str, connection: str | None
) -> None:
    browser = Browser()
    browser.get("/", *headers, version=version).answer(b"x")
    assert browser.answer().headers.get("connection") == connection
    assert browser.end == end


def test_nothing_is_read_after_the_last_request() -> None:
    browser = Browser()
    browser.send(request("/", "Connection: close") + request("/second"))
    browser.send(request("/third"))
    [asked] = browser.asked
    asked.answer(b"x")
    assert (len(parsed(browser.news())), browser.end) == (1, "close")


def test_pipelined_requests_are_served_one_after_another_in_order() -> None:
    browser = Browser()
    browser.send(b"".join(request(f"/{number}") for number in range(3)))
    for number in range(3):
        assert len(browser.asked) == number + 1
        browser.asked[-1].answer(b"%d" % number)
        browser.settle()
    assert [answer.body for answer in parsed(browser.news())] == [b"0", b"1", b"2"]


def test_a_client_that_pipelines_too_much_is_read_later() -> None:
    browser = Browser()
    browser.send(b"".join(request(f"/{number}") for number in range(MAX_PIPELINED)))
    assert browser.transport.reading
    browser.send(request("/more") + request("/still-more"))
    assert not browser.transport.reading
    for _ in range(3):
        assert len(browser.asked) <= MAX_PIPELINED + 2
        browser.asked[-1].answer(b"x")
        browser.settle()
    assert browser.transport.reading


def test_a_client_that_does_not_read_is_not_read() -> None:
    browser = Browser()
    browser.send(request("/0") + request("/1"))
    browser.connection.pause_writing()
    assert not browser.transport.reading
    browser.asked[-1].answer(b"x" * 100)
    browser.settle()
    assert len(browser.asked) == 1
    browser.connection.resume_writing()
    assert browser.transport.reading
    assert len(browser.asked) == 2


# Bodies


def test_a_body_in_chunks_arrives_whole_and_without_its_trailers() -> None:
    browser = Browser()
    head = request("/", "Transfer-Encoding: chunked", method="POST")
    browser.send(head + b"3;ext=1\r\nabc\r\n", b"2\r\nde\r\n0\r\nX-Request-ID: trailer\r\nX-T: 1\r\n\r\n")
    [asked] = browser.asked
    assert asked.body == b"abcde"
    assert [name for name, _ in asked.head.headers] == [b"host", b"transfer-encoding"]
    assert asked.head.request_id != "trailer"


def test_the_client_is_told_to_go_on() -> None:
    browser = Browser()
    browser.send(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
    assert browser.news() == b"HTTP/1.1 100 Continue\r\n\r\n"
    browser.send(b"abc")
    assert browser.news() == b""
    browser.asked[0].answer(b"x")
    assert browser.answer().body == b"x"


def test_the_client_is_told_to_go_on_when_those_before_it_are_answered() -> None:
    browser = Browser()
    browser.send(request("/0"), request("/1", "Expect: 100-continue", "Content-Length: 3", method="POST"))
    assert browser.news() == b""
    browser.asked[0].answer(b"0")
    assert browser.news().endswith(b"\r\n\r\n0HTTP/1.1 100 Continue\r\n\r\n")
    browser.send(b"abc")
    assert browser.asked[1].body == b"abc"
    assert browser.news() == b""


def test_a_client_that_did_not_wait_is_not_told_to_go_on() -> None:
    browser = Browser()
    browser.send(request("/0"), request("/1", "Expect: 100-continue", "Content-Length: 3", method="POST") + b"ab")
    browser.asked[0].answer(b"0")
    assert browser.answer().body == b"0"


def test_an_old_client_does_not_know_how_to_be_told_to_go_on() -> None:
    browser = Browser()
    browser.send(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST", version="1.0"))
    assert browser.news() == b""


# Request ids


def test_a_request_without_an_id_is_given_one_that_nobody_else_has() -> None:
    browser = Browser()
    seen = set()
    for _ in range(3):
        asked = browser.get()
        asked.answer(b"")
        assert browser.answer().headers["x-request-id"] == asked.head.request_id
        seen.add(asked.head.request_id)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        (["X-Request-ID: abc"], "abc"),
        (["x-request-id: first", "x-request-id: second"], "first"),
        (["x-request-id:", "x-request-id: second"], "second"),
        (["x-request-id: abc \t"], "abc"),
        (["x-request-id: \xe4"], "\xe4"),
        (["x-request-id: " + "a" * 1000], "a" * MAX_REQUEST_ID_SIZE_BYTES),
    ],
    ids=["given", "first", "empty", "stripped", "latin-1", "capped"],
)
def test_the_clients_id_is_kept_and_given_back(headers: list[str], request_id: str) -> None:
    browser = Browser()
    asked = browser.get("/", *headers)
    asked.answer(b"")
    assert asked.head.request_id == browser.answer().headers["x-request-id"] == request_id


# Refusals

LONG = "x" * (MAX_TARGET_SIZE_BYTES + 1)
MANY = [f"x-{number}: 1" for number in range(MAX_HEADERS + 1)]
LARGE = [f"x-{number}: {'y' * 1000}" for number in range(MAX_HEADERS_SIZE_BYTES // 1000 + 3)]
CHUNKED = request("/", "Transfer-Encoding: chunked", method="POST")

REFUSED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "no method": (b"NONSENSE / HTTP/1.1\r\n\r\n", 400),
    "no path": (b"GET nonsense HTTP/1.1\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "another version": (b"GET / HTTP/1.2\r\n\r\n", 400),
    "HTTP/2 without a preface": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "CONNECT": (request("host:443", method="CONNECT"), 501),
    "long target": (f"GET /{LONG} HTTP/1.1\r\n\r\n".encode(), 414),
    "endless target": (f"GET /{LONG}".encode(), 414),
    "many headers": (request("/", *MANY), 431),
    "large headers": (request("/", *LARGE), 431),
    "endless headers": (request("/", *LARGE)[:-2], 431),
    "length that nobody has": (request("/", f"Content-Length: {10**18}"), 413),
    "length with many zeros": (request("/", f"Content-Length: {'0' * 5000}{10**18}"), 413),
    "length beyond all numbers": (request("/", f"Content-Length: {'9' * 30}"), 400),
    "length and chunks": (request("/", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    "chunks and length": (request("/", "Transfer-Encoding: chunked", "Content-Length: 3"), 400),
    "two lengths": (request("/", "Content-Length: 3", "Content-Length: 4"), 400),
    "two equal lengths": (request("/", "Content-Length: 3", "Content-Length: 3"), 400),
    "list of lengths": (request("/", "Content-Length: 3, 3"), 400),
    "signed length": (request("/", "Content-Length: +3"), 400),
    "chunked twice": (request("/", "Transfer-Encoding: chunked, chunked"), 400),
    "chunked in two headers": (request("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "another coding": (request("/", "Transfer-Encoding: gzip, chunked"), 501),
    "unknown coding": (request("/", "Transfer-Encoding: xchunked"), 501),
    "space before the colon": (request("/", "Content-Length : 3"), 400),
    "folded header": (request("/", "x: a\r\n b"), 400),
    "NUL in a header": (request("/", "x: a\0b"), 400),
    "CR in a header": (request("/", "x: a\rb"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "header without a name": (request("/", ": a"), 400),
    "bytes in the path": (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 400),
    "chunk size that is none": (CHUNKED + b"xyz\r\n", 400),
    "negative chunk size": (CHUNKED + b"-1\r\n", 400),
    "prefixed chunk size": (CHUNKED + b"0x3\r\nabc\r\n", 400),
    "chunk size beyond all numbers": (CHUNKED + b"f" * 17 + b"\r\n", 400),
    "chunk longer than it says": (CHUNKED + b"3\r\nabcd\r\n", 400),
    "chunk size and LF": (CHUNKED + b"3\nabc\n", 400),
    "large trailers": (CHUNKED + b"0\r\n" + "".join(f"{each}\r\n" for each in LARGE).encode(), 431),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_answered_with_an_id_and_ends_the_connection(data: bytes, status: int) -> None:
    browser = Browser()
    browser.send(data)
    answer = browser.answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert len(answer.headers["x-request-id"]) > 8
    assert (browser.end, browser.asked) == ("eof", [])


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_as_well_a_few_bytes_at_a_time(data: bytes, status: int) -> None:
    browser = Browser()
    browser.send(*(data[start : start + 7] for start in range(0, len(data), 7)))
    assert browser.answer().status == status
    # A replica has seen no more than the beginning of a body that turned out to be none.
    assert all(asked.exchange.abandoned and not asked.complete for asked in browser.asked)
    assert data.startswith(CHUNKED) or not browser.asked


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_those_before_it_are_answered_first(data: bytes, status: int) -> None:
    browser = Browser()
    browser.send(request("/0") + request("/1") + data)
    for number in range(2):
        assert browser.end == ""
        browser.asked[number].answer(b"%d" % number)
        browser.settle()
    answers = parsed(browser.news())
    assert [answer.status for answer in answers] == [200, 200, status]
    assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
    assert browser.end == "eof"


def test_nothing_is_parsed_after_a_refusal() -> None:
    browser = Browser()
    browser.send(request("/", *MANY) + request("/smuggled"), request("/later"), b"\0\0\0")
    assert (len(parsed(browser.news())), browser.asked) == (1, [])


def test_a_refusal_has_the_id_that_was_given_before() -> None:
    browser = Browser()
    browser.send(request("/", "x-request-id: abc", *MANY))
    assert browser.answer().headers["x-request-id"] == "abc"


def test_a_refusal_does_not_have_the_id_of_the_request_before() -> None:
    browser = Browser()
    browser.get("/", "x-request-id: abc").answer(b"")
    browser.news()
    browser.send(b"\0")
    answer = browser.answer()
    assert (answer.status, answer.headers["x-request-id"] != "abc") == (400, True)


def test_a_refused_client_is_read_until_it_has_read_the_answer() -> None:
    browser = Browser()
    browser.send(request("/", f"Content-Length: {10**18}"))
    assert (browser.end, browser.transport.reading) == ("eof", True)
    browser.send(b"x" * 1000, b"y" * 1000)
    browser.wait(1.9)
    assert browser.end == "eof"
    browser.wait(0.2)
    assert browser.end == "abort"


def test_as_many_headers_as_allowed_are_allowed() -> None:
    assert len(Browser().get("/", *MANY[2:]).head.headers) == MAX_HEADERS


@pytest.mark.parametrize(
    "beginning",
    [request("/")[:-2] + b"x: ", CHUNKED + b"1;", CHUNKED + b"1\r\na\r\n0\r\nx: "],
    ids=["a header", "a chunk's extension", "a trailer"],
)
def test_what_never_ends_is_refused(beginning: bytes) -> None:
    browser = Browser()
    browser.send(beginning)
    pieces = 0
    while not browser.end:
        browser.send(b"y" * 1000)
        pieces += 1
        assert pieces < 50
    assert browser.answer().status == 431


def test_a_long_body_in_small_pieces_is_no_header_that_never_ends() -> None:
    browser = Browser()
    browser.send(request("/", "Content-Length: 100000", method="POST"), *[b"x" * 10] * 10_000)
    assert len(browser.asked[0].body) == 100_000


def test_many_requests_in_one_piece_and_the_beginning_of_one_more_are_no_header_that_never_ends() -> None:
    browser = Browser()
    browser.send(request("/") * 1000 + b"GE")
    assert browser.news() == b""


@pytest.mark.parametrize(
    ("method", "version", "protocol"),
    [("GET", "1.1", "h2c"), ("POST", "1.1", "websocket"), ("GET", "1.0", "websocket")],
)
def test_an_upgrade_to_what_is_not_spoken_is_answered_as_http_and_ends_the_connection(
    method: str, version: str, protocol: str
) -> None:
    browser = Browser()
    upgrade = request("/ws", "Connection: Upgrade", f"Upgrade: {protocol}", method=method, version=version)
    browser.send(upgrade + b"\x81\x05hello")
    browser.asked[0].answer(b"no", 500)
    answer = browser.answer()
    assert (answer.status, answer.headers["connection"], browser.end) == (500, "close", "close")


def test_an_upgrade_that_nobody_has_asked_for_changes_nothing() -> None:
    browser = Browser()
    browser.get("/", "Upgrade: h2c").answer(b"")
    assert (browser.answer().headers.get("connection"), browser.end) == (None, "")


@pytest.mark.parametrize("cut", [1, 10, 60_000, 99_999])
@pytest.mark.parametrize("header", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_that_comes_with_an_offer_to_upgrade_arrives(header: str, cut: int) -> None:
    browser = Browser()
    browser.send(request("/", "Connection: Upgrade", "Upgrade: h2c", header, method="POST"))
    body = b"x" * 100_000
    data = body if header.startswith("C") else b"%x\r\n%b\r\n0\r\nT: 1\r\n\r\n" % (len(body), body)
    browser.send(data[:cut], data[cut:] + request("/smuggled"))
    [asked] = browser.asked
    assert (asked.body, asked.complete) == (body, True)
    asked.answer(b"x")
    assert (browser.answer().headers["connection"], browser.end) == ("close", "close")


def test_a_bug_of_our_own_ends_the_connection_and_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser()
    monkeypatch.setattr(http.HttpConnection, "_begin", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        browser.send(request("/") + request("/"))
    assert (browser.end, "ZeroDivisionError" in caplog.text) == ("abort", True)
    browser.send(request("/"))


# Any bytes at all

REQUESTS = [
    request("/0"),
    request("/1?x=1", "X-A: b", "x-request-id: one"),
    request("/2", method="POST", body=b"0123456789" * 3),
    request("/3", "Transfer-Encoding: chunked", method="PUT")
    + b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n",
    b"\r\n" + request("/4", method="HEAD"),
    request("/5", "Connection: close"),
]


def exchanges(pieces: list[bytes]) -> Iterator[tuple[Any, ...]]:
    """Send pieces to a proxy that answers at once; yield what was asked."""
    browser = Browser()
    for piece in pieces:
        browser.send(piece)
        while browser.asked and browser.asked[-1].complete and not browser.asked[-1].exchange.started:
            browser.asked[-1].answer(b"")
            browser.settle()
    for asked in browser.asked:
        head = asked.head
        yield head.method, head.path, head.query, tuple(head.headers), asked.body
    yield (browser.end,)


@given(st.sets(st.integers(1, len(b"".join(REQUESTS)) - 1), max_size=20))
@example(set(range(1, len(b"".join(REQUESTS)))))
def test_the_same_bytes_are_the_same_requests_wherever_they_are_cut(cuts: set[int]) -> None:
    data = b"".join(REQUESTS)
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert list(exchanges(pieces)) == list(exchanges([data]))


def test_they_are_the_requests_that_were_meant() -> None:
    asked = list(exchanges(REQUESTS))
    assert [each[1] for each in asked[:-1]] == ["/0", "/1", "/2", "/3", "/4", "/5"]
    assert asked[2][4] == b"0123456789" * 3
    assert asked[3][4] == b"abc0123456789abcdef"
    assert asked[-1] == ("close",)


WORDS = b"GET| / |HTTP/1.1|\r\n|\n|\0|:|0\r\n\r\n|5\r\nhello\r\n|CONNECT a:1 |http://[|%"
HEADERS = b"Host: a|Content-Length: 5|Transfer-Encoding: chunked|Expect: 100-continue|x-request-id: \xff"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: x\r\n"
bits = st.sampled_from([*REQUESTS, *WORDS.split(b"|"), *(each + b"\r\n" for each in HEADERS.split(b"|")), UPGRADE])


@given(st.lists(bits | st.binary(max_size=20), max_size=12), st.booleans())
def test_whatever_a_client_sends_it_is_answered_or_waited_for(pieces: list[bytes], draining: bool) -> None:
    site = FakeSite()
    site.draining = draining
    browser = Browser(site)
    for piece in pieces:
        browser.send(piece)
        for router in site.routers.values():
            for asked in router.asked:
                if not asked.exchange.started:
                    asked.answer(b"ok")
        browser.settle()
    assert browser.end in ("", "close", "eof")
    for answer in browser.transport.writes:
        assert answer.startswith(b"HTTP/1.1 ")
    browser.wait(1000)
    browser.wait(1000)
    assert browser.end != ""
    browser.leave()
    assert site.open == set()
