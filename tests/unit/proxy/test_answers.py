"""Answers out: whole and streamed, lost, cut and given up, to clients that read, wait and leave."""

import logging

import msgspec
import pytest

from salver.proxy.crowd import OVERLOADED
from salver.proxy.limits import GRANT_SIZE_BYTES, LINGER_S, QUIET_S
from salver.schema.errors import BackPressureError, DeploymentUnavailableError
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID
from salver.transport.wire import END, MORE, RESPONSE, ResponseHead
from tests.unit.proxy.doubles import DATE, Browser, FakeSite, parsed, request


def sized(length: int) -> list[tuple[bytes, bytes]]:
    """Return headers that announce a length."""
    return [(b"content-length", b"%d" % length)]


# Whole answers


def test_the_length_is_that_of_the_body_whatever_the_replica_says() -> None:
    browser = Browser()
    browser.get().answer(b"hello", headers=sized(3))
    answer = browser.answer()
    assert (answer.body, answer.headers["content-length"]) == (b"hello", "5")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_has_none(status: int) -> None:
    browser = Browser()
    browser.get().answer(b"body", status, headers=sized(4))
    assert browser.news().split(b"\r\n", 1)[1] == b"x-request-id: %b\r\n%b\r\n" % (_id(browser), DATE)


@pytest.mark.parametrize(("headers", "length"), [(sized(1000), b"1000"), ([], b"4")], ids=["announced", "sent"])
def test_an_answer_to_head_has_the_length_and_not_the_body(headers: list[tuple[bytes, bytes]], length: bytes) -> None:
    browser = Browser()
    browser.get(method="HEAD").answer(b"" if headers else b"body", headers=headers)
    written = browser.news()
    assert b"\r\ncontent-length: %b\r\n" % length in written
    assert written.endswith(b"\r\n\r\n")
    browser.get("/next").answer(b"x")
    assert browser.answer().body == b"x"


def test_the_proxys_own_answers_to_head_have_no_body() -> None:
    browser = Browser()
    browser.send(request("/-/healthz", method="HEAD"))
    assert browser.news().endswith(b"\r\n\r\n")


def test_a_head_that_is_no_http_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    with caplog.at_level(logging.ERROR):
        browser.get("/", "x-request-id: abc").answer(b"x", headers=[(b"x", b"a\r\nset-cookie: b")])
    answer = browser.answer()
    assert (answer.status, answer.body, browser.end) == (500, b"Internal Server Error", "")
    assert "request abc: the answer cannot be written as HTTP" in caplog.text


def test_a_stream_whose_head_is_no_http_is_stopped() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x", 42)
    asked.more(b"more")
    asked.end()
    assert browser.answer().status == 500
    assert browser.site.root.cancelled == [asked.exchange]


def test_a_head_that_cannot_be_decoded_is_an_internal_error() -> None:
    browser = Browser()
    browser.get().frame(RESPONSE, msgspec.msgpack.encode(ResponseHead("ok", [])), b"")  # type: ignore[arg-type]
    assert browser.answer().status == 500


# Streams


def test_a_stream_is_sent_in_chunks() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"one")
    assert browser.news().endswith(
        b"\r\ntransfer-encoding: chunked\r\nx-request-id: %b\r\n%b\r\n3\r\none\r\n" % (_id(browser), DATE)
    )
    asked.more(b"two")
    asked.more(b"")
    assert browser.news() == b"3\r\ntwo\r\n"
    asked.end(b"three")
    assert browser.news() == b"5\r\nthree\r\n0\r\n\r\n"
    browser.get("/next").answer(b"x")
    assert browser.answer().body == b"x"


def test_a_stream_may_begin_without_a_body() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start()
    asked.end()
    assert browser.answer().body == b""


def test_a_stream_of_known_length_is_sent_as_it_is() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"one", headers=sized(6))
    asked.more(b"two")
    asked.end()
    answer = browser.answer()
    assert (answer.body, answer.headers["content-length"], "transfer-encoding" in answer.headers) == (
        b"onetwo",
        "6",
        False,
    )
    assert browser.end == ""


@pytest.mark.parametrize("more", [b"", b"0123456789"], ids=["shorter", "longer"])
def test_a_stream_of_another_length_than_announced_is_cut(more: bytes) -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"one", headers=sized(6))
    asked.more(more)
    asked.end()
    assert browser.end == "abort"
    assert browser.news().endswith(b"one")


def test_a_stream_to_head_has_no_body() -> None:
    browser = Browser()
    asked = browser.get(method="HEAD")
    asked.start(b"one")
    asked.more(b"two")
    asked.end(b"three")
    assert browser.news().endswith(b"\r\n\r\n")
    assert browser.end == ""


def test_a_stream_of_known_length_to_head_has_no_body() -> None:
    browser = Browser()
    asked = browser.get(method="HEAD")
    asked.start(b"one", headers=sized(1000))
    asked.end()
    assert b"\r\ncontent-length: 1000\r\n" in browser.news()
    assert browser.end == ""


@pytest.mark.parametrize("status", [204, 304])
def test_a_stream_that_may_not_have_a_body_has_none(status: int) -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"one", status)
    asked.more(b"two")
    asked.end()
    written = browser.news()
    assert written.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in written
    assert browser.end == ""


@pytest.mark.parametrize("headers", [[], ["Connection: keep-alive"]])
def test_an_old_client_reads_a_stream_until_the_connection_ends(headers: list[str]) -> None:
    browser = Browser()
    asked = browser.get("/", *headers, version="1.0")
    asked.start(b"one")
    asked.end(b"two")
    written = browser.news()
    assert written.endswith(b"\r\nconnection: close\r\n\r\nonetwo")
    assert b"transfer-encoding" not in written
    assert browser.end == "close"


def test_an_old_client_may_keep_the_connection_after_a_stream_of_known_length() -> None:
    browser = Browser()
    asked = browser.get("/", "Connection: keep-alive", version="1.0")
    asked.start(b"one", headers=sized(3))
    asked.end()
    assert (browser.answer().headers["connection"], browser.end) == ("keep-alive", "")


def test_a_replica_is_told_now_and_then_that_the_client_keeps_up() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x" * 100)
    asked.more(b"x" * (GRANT_SIZE_BYTES - 101))
    assert asked.replica.credit == 0
    asked.more(b"x")
    assert asked.replica.credit == GRANT_SIZE_BYTES


def test_a_replica_whose_client_does_not_read_must_wait() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x")
    browser.connection.pause_writing()
    asked.more(b"x" * GRANT_SIZE_BYTES)
    asked.more(b"x" * GRANT_SIZE_BYTES)
    assert asked.replica.credit == 0
    browser.connection.resume_writing()
    assert asked.replica.credit == 2 * GRANT_SIZE_BYTES + 1
    browser.connection.pause_writing()
    browser.connection.resume_writing()
    assert asked.replica.credit == 2 * GRANT_SIZE_BYTES + 1


def test_a_replica_that_is_gone_is_told_nothing() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x")
    browser.connection.pause_writing()
    asked.more(b"x" * GRANT_SIZE_BYTES)
    asked.replica.closed = True
    browser.connection.resume_writing()
    assert asked.replica.credit == 0


# What goes wrong


def test_an_error_before_the_answer_is_an_internal_error() -> None:
    browser = Browser()
    browser.get().error()
    assert browser.answer().status == 500


def test_an_error_within_the_answer_cuts_the_connection() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x")
    asked.error()
    assert browser.end == "abort"


@pytest.mark.parametrize("started", [False, True])
def test_a_replica_that_dies_is_a_bad_gateway_or_a_cut_connection(*, started: bool) -> None:
    browser = Browser()
    asked = browser.get("/", "x-request-id: abc", method="POST")
    if started:
        asked.start(b"x")
    asked.exchange.on_lost("Model#1")
    if started:
        assert browser.end == "abort"
    else:
        answer = browser.answer()
        assert (answer.status, answer.headers["x-request-id"]) == (502, "abc")
        assert answer.body.startswith(b"Replica Model#1 died while it was working on request abc.")


@pytest.mark.parametrize(
    ("method", "may"),
    [
        ("GET", True),
        ("HEAD", True),
        ("OPTIONS", True),
        ("PUT", True),
        ("DELETE", True),
        ("POST", False),
        ("PATCH", False),
    ],
)
def test_only_what_has_no_effect_when_done_twice_is_sent_again(method: str, *, may: bool) -> None:
    asked = Browser().get(method=method)
    assert asked.exchange.may_repeat() is may
    asked.start(b"")
    assert not asked.exchange.may_repeat()


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (BackPressureError(1, 1, 429, 1.5), 429, "2"),
        (BackPressureError(1, 1), 503, None),
        (DeploymentUnavailableError(DeploymentID("Model", "shop")), 503, None),
    ],
    ids=["429", "503", "unavailable"],
)
def test_a_request_that_no_replica_takes_is_refused_and_the_connection_stays(
    error: BackPressureError | DeploymentUnavailableError, status: int, header: str | None
) -> None:
    browser = Browser()
    browser.site.root.refusal = error
    browser.send(request("/") + request("/"))
    answers = parsed(browser.news())
    assert [answer.status for answer in answers] == [status, status]
    assert (answers[0].headers.get("retry-after"), answers[0].body.decode()) == (header, error.message)
    assert browser.end == ""


# Clients that leave


def test_a_client_that_leaves_before_its_request_has_arrived_asks_nothing() -> None:
    browser = Browser()
    browser.send(request("/", body=b"abc")[:-1])
    browser.leave()
    assert (browser.site.routers, browser.site.open) == ({}, set())


def test_a_client_that_leaves_while_its_request_waits_cancels_it() -> None:
    browser = Browser()
    browser.site.root.waits = True
    browser.send(request("/"))
    browser.leave()
    assert browser.site.root.cancelled == browser.site.root.waiting


@pytest.mark.parametrize("started", [False, True])
def test_a_client_that_leaves_cancels_its_request(*, started: bool) -> None:
    browser = Browser()
    asked = browser.get()
    if started:
        asked.start(b"x")
    browser.leave()
    assert browser.site.root.cancelled == [asked.exchange]


def test_a_client_that_leaves_never_asks_what_it_pipelined() -> None:
    browser = Browser()
    browser.send(request("/0") + request("/1"))
    browser.asked[0].answer(b"0")
    browser.leave()
    browser.settle()
    assert len(browser.asked) == 1


def test_a_client_that_leaves_after_its_answer_cancels_nothing() -> None:
    browser = Browser()
    browser.get().answer(b"x")
    browser.leave()
    assert browser.site.root.cancelled == []


def test_a_cut_connection_cancels_what_is_under_way() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"one", headers=sized(3))
    asked.more(b"more")
    assert browser.site.root.cancelled == [asked.exchange]
    browser.leave()
    assert browser.site.root.cancelled == [asked.exchange]


# Time


def limited(request_timeout_s: float | None) -> Browser:
    site = FakeSite()
    site.options = HTTPOptions(request_timeout_s=request_timeout_s, keep_alive_timeout_s=90)
    return Browser(site)


def test_a_request_that_takes_too_long_is_given_up() -> None:
    browser = limited(5)
    asked = browser.get("/", "x-request-id: abc")
    browser.wait(5)
    assert browser.news() == b""
    browser.wait(0.1)
    answer = browser.answer()
    assert (answer.status, answer.body) == (408, b"Request abc timed out after 5.0s.")
    assert (browser.site.root.cancelled, browser.end) == ([asked.exchange], "")
    browser.get("/next").answer(b"x")
    assert browser.answer().body == b"x"


def test_a_stream_that_takes_too_long_is_cut() -> None:
    browser = limited(5)
    asked = browser.get()
    asked.start(b"x")
    browser.wait(5.1)
    assert (browser.site.root.cancelled, browser.end) == ([asked.exchange], "abort")


@pytest.mark.parametrize("timeout_s", [None, 0, -1])
def test_without_a_limit_a_request_may_take_for_ever(timeout_s: float | None) -> None:
    browser = limited(timeout_s)
    browser.get()
    browser.wait(1e6)
    assert (browser.news(), browser.end) == (b"", "")


def test_each_pipelined_request_has_its_own_time() -> None:
    browser = limited(5)
    browser.send(request("/0") + request("/1"))
    browser.wait(4)
    browser.asked[0].answer(b"0")
    browser.settle()
    browser.wait(4)
    browser.asked[1].answer(b"1")
    assert [answer.status for answer in parsed(browser.news())] == [200, 200]


@pytest.mark.parametrize("beginning", [b"G", request("/")[:-1], request("/", body=b"abc")[:-1]])
def test_a_client_that_sends_too_slowly_is_refused(beginning: bytes) -> None:
    browser = Browser()
    browser.send(beginning)
    browser.wait(browser.site.options.request_arrival_timeout_s)
    assert browser.news() == b""
    browser.wait(0.1)
    answer = browser.answer()
    assert (answer.status, answer.headers["connection"], "x-request-id" in answer.headers) == (408, "close", True)


def test_a_client_that_sends_a_byte_now_and_then_is_too_slow_too() -> None:
    browser = Browser()
    for byte in request("/"):
        browser.wait(10)
        if browser.end:
            break
        browser.send(bytes([byte]))
    assert browser.answer().status == 408


def test_the_time_to_arrive_begins_with_the_request() -> None:
    browser = Browser()
    browser.wait(80)
    browser.send(request("/")[:-1])
    browser.wait(59)
    browser.send(request("/")[-1:])
    browser.asked[0].answer(b"x")
    assert browser.answer().status == 200


def test_a_silent_client_is_closed() -> None:
    browser = Browser()
    browser.wait(90)
    assert browser.end == ""
    browser.wait(0.1)
    assert (browser.end, browser.news()) == ("close", b"")


def test_silence_begins_with_the_last_answer() -> None:
    browser = Browser()
    asked = browser.get()
    browser.wait(1000)
    asked.answer(b"x")
    browser.settle()
    browser.wait(90)
    assert browser.end == ""
    browser.wait(0.1)
    assert browser.end == "close"


def test_a_client_that_does_not_even_read_is_cut_off_in_the_end() -> None:
    browser = Browser()
    browser.get().answer(b"x")
    browser.wait(91)
    assert browser.end == "close"
    browser.wait(LINGER_S + 1)
    assert browser.end == "abort"


def test_one_that_is_turned_away_is_told_so_before_it_asks() -> None:
    browser = Browser()
    browser.connection.turn_away(OVERLOADED)
    answer = browser.answer()
    assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")
    assert browser.end == "eof"
    browser.send(request("/"))
    assert (browser.asked, browser.news()) == ([], b"")


def test_a_replica_learns_whether_the_client_speaks_https() -> None:
    site = FakeSite()
    site.scheme = "https"
    browser = Browser(site)
    assert browser.get().head.scheme == "https"


# Draining


def draining(browser: Browser) -> None:
    """Drain, as the server does."""
    browser.site.draining = True
    browser.connection.finish()
    browser.settle()


def test_an_idle_client_is_closed_when_the_proxy_drains() -> None:
    browser = Browser()
    browser.get().answer(b"x")
    draining(browser)
    assert browser.end == "", "its next request may be on its way"
    browser.site.loop.now += QUIET_S
    draining(browser)
    assert browser.end == "close"


def test_a_client_that_waits_has_its_answer_first() -> None:
    browser = Browser()
    asked = browser.get()
    draining(browser)
    assert browser.end == ""
    asked.answer(b"x")
    answer = browser.answer()
    assert (answer.body, answer.headers["connection"], browser.end) == (b"x", "close", "close")


def test_a_stream_that_had_begun_ends_with_the_connection() -> None:
    browser = Browser()
    asked = browser.get()
    asked.start(b"x")
    draining(browser)
    asked.end(b"y")
    answer = browser.answer()
    assert (answer.body, "connection" in answer.headers, browser.end) == (b"xy", False, "close")


def test_what_was_pipelined_is_answered_too() -> None:
    browser = Browser()
    browser.send(request("/0") + request("/1"))
    draining(browser)
    for number in range(2):
        browser.asked[number].answer(b"%d" % number)
        browser.settle()
    answers = parsed(browser.news())
    assert [(answer.body, answer.headers.get("connection")) for answer in answers] == [(b"0", None), (b"1", "close")]
    assert browser.end == "close"


def test_a_request_that_is_arriving_is_answered_too() -> None:
    browser = Browser()
    browser.send(request("/", body=b"abc")[:-1])
    draining(browser)
    assert browser.end == ""
    browser.send(b"c")
    browser.asked[0].answer(b"x")
    assert (browser.answer().body, browser.end) == (b"x", "close")


def test_a_request_that_is_arriving_behind_another_is_answered_too() -> None:
    browser = Browser()
    browser.send(request("/0") + request("/1")[:-1])
    draining(browser)
    browser.asked[0].answer(b"0")
    browser.send(request("/1")[-1:])
    browser.asked[1].answer(b"1")
    assert [answer.body for answer in parsed(browser.news())] == [b"0", b"1"]
    assert browser.end == "close"


def test_a_client_that_comes_too_late_is_asked_to_come_again() -> None:
    site = FakeSite()
    site.draining = True
    browser = Browser(site)
    browser.send(request("/0") + request("/1"))
    assert len(browser.asked) == 1
    browser.asked[0].answer(b"0")
    browser.settle()
    browser.asked[1].answer(b"1")
    assert [answer.headers.get("connection") for answer in parsed(browser.news())] == [None, "close"]


def _id(browser: Browser) -> bytes:
    return browser.asked[-1].head.request_id.encode()


def test_what_comes_after_the_last_answer_is_not_served() -> None:
    site = FakeSite()
    site.draining = True
    browser = Browser(site)
    browser.send(request("/-/healthz") + request("/later"))
    assert (browser.answer().headers["connection"], browser.end, site.root.asked) == ("close", "close", [])


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    browser = Browser()
    whole = browser.get()
    browser.leave()
    whole.exchange.on_frame(RESPONSE, 0, 0, msgspec.msgpack.encode(ResponseHead(200, [])), b"x")
    whole.exchange.on_frame(RESPONSE, MORE, 0, msgspec.msgpack.encode(ResponseHead(200, [])), b"x")
    whole.exchange.on_frame(END, 0, 0, b"", b"x")
    assert browser.news() == b""
