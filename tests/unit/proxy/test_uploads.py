"""Bodies that are sent on while they arrive."""

import pytest

from salver.proxy.limits import MIN_UPLOAD_RATE_BYTES_PER_S, UPLOAD_WINDOW_SIZE_BYTES
from salver.transport.wire import CHUNK, CREDIT, END, HTTP, MORE
from tests.unit.proxy.doubles import Browser, ReplicaEnd, parsed, request

CHUNKED = request("/", "Transfer-Encoding: chunked", method="POST")
LONG = 3 * UPLOAD_WINDOW_SIZE_BYTES
PIECE = b"x" * (64 * 1024)


def long_head(size: int = LONG, *headers: str, method: str = "POST") -> bytes:
    return request("/", f"Content-Length: {size}", *headers, method=method)


def test_a_short_body_is_sent_in_one_piece_when_it_is_whole() -> None:
    browser = Browser()
    browser.send(request("/", "Content-Length: 10", method="POST"), b"01234")
    assert browser.asked == []
    browser.send(b"56789")
    assert (browser.asked[0].body, browser.asked[0].complete) == (b"0123456789", True)


def test_a_short_body_in_chunks_that_come_together_is_sent_in_one_piece() -> None:
    browser = Browser()
    browser.send(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
    assert (browser.asked[0].body, browser.asked[0].complete) == (b"abc", True)


def test_chunks_are_sent_on_as_they_come() -> None:
    browser = Browser()
    browser.send(CHUNKED)
    [asked] = browser.asked
    assert (asked.body, asked.complete) == (b"", False)
    browser.send(b"3\r\nabc\r\n")
    assert (asked.body, asked.complete) == (b"abc", False)
    browser.send(b"2\r\nde\r\n0\r\n\r\n")
    assert (asked.body, asked.complete) == (b"abcde", True)
    asked.answer(b"5")
    answer = browser.answer()
    assert (answer.status, answer.body, answer.headers.get("connection"), browser.end) == (200, b"5", None, "")


def test_the_connection_serves_others_after_an_upload() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n" + request("/next"))
    browser.asked[0].answer(b"")
    browser.settle()
    assert (len(browser.asked), browser.asked[1].head.path) == (2, "/next")
    browser.asked[1].answer(b"")
    assert len(parsed(browser.news())) == 2


def test_no_more_is_read_than_the_replica_takes() -> None:
    browser = Browser()
    browser.send(long_head())
    [asked] = browser.asked
    sent = 0
    while browser.transport.reading:
        browser.send(PIECE)
        sent += len(PIECE)
    assert sent == UPLOAD_WINDOW_SIZE_BYTES
    asked.grant(1)
    assert browser.transport.reading
    browser.send(PIECE)
    assert not browser.transport.reading
    asked.grant(UPLOAD_WINDOW_SIZE_BYTES)
    assert browser.transport.reading


def test_a_body_that_waits_for_a_replica_is_kept_up_to_a_window_and_sent_whole() -> None:
    browser = Browser()
    browser.site.root.waits = True
    browser.send(long_head(), *[PIECE] * 4)
    assert not browser.transport.reading
    [waiting] = browser.site.root.waiting
    replica = ReplicaEnd()
    waiting.channel, waiting.stream = replica, 1  # type: ignore[assignment]
    waiting.write(replica, 1, 0)  # type: ignore[arg-type]
    assert (replica.body, replica.complete) == (PIECE * 4, False)


def test_a_refused_upload_is_sent_whole_to_another_replica_and_nothing_more_to_the_first() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"3\r\nabc\r\n")
    [asked] = browser.asked
    asked.exchange.channel = None
    browser.send(b"3\r\ndef\r\n")
    assert asked.body == b"abc"
    second = ReplicaEnd()
    asked.exchange.channel, asked.exchange.stream = second, 1  # type: ignore[assignment]
    browser.send(b"1\r\ng\r\n")
    # The channel is not connected yet: nothing may be sent on it but by `write`.
    assert second.body == b""
    asked.exchange.write(second, 1, 0)  # type: ignore[arg-type]
    browser.send(b"1\r\nh\r\n0\r\n\r\n")
    assert (asked.body, second.body, second.complete) == (b"abc", b"abcdefgh", True)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_may_be_repeated_only_while_all_of_it_is_known(method: str) -> None:
    browser = Browser()
    browser.send(long_head(method=method), PIECE)
    [asked] = browser.asked
    assert asked.exchange.may_repeat() is (method == "PUT")
    asked.grant(1)
    assert not asked.exchange.may_repeat()


def test_an_answer_before_the_end_of_the_body_ends_the_connection_once_the_client_could_read_it() -> None:
    browser = Browser()
    browser.send(long_head(), PIECE)
    browser.asked[0].answer(b"enough", status=413)
    answer = browser.answer()
    assert (answer.status, answer.headers["connection"], browser.end) == (413, "close", "eof")
    assert browser.transport.reading
    browser.send(PIECE, PIECE)
    assert browser.news() == b""
    browser.wait(3)
    assert browser.end == "abort"


def test_a_stream_may_be_answered_while_it_comes() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"1\r\na\r\n")
    [asked] = browser.asked
    asked.start(b"A")
    browser.send(b"1\r\nb\r\n")
    asked.more(b"B")
    browser.send(b"0\r\n\r\n")
    asked.end()
    answer = browser.answer()
    assert (answer.body, asked.body, asked.complete, browser.end) == (b"AB", b"ab", True, "")


def test_a_body_that_turns_out_to_be_none_cancels_the_request() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"1\r\na\r\n", b"nonsense\r\n")
    assert browser.asked[0].exchange.abandoned
    assert (browser.answer().status, browser.end) == (400, "eof")


def test_a_body_that_turns_out_to_be_none_cuts_an_answer_that_has_begun() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"1\r\na\r\n")
    browser.asked[0].start(b"A")
    browser.send(b"nonsense\r\n")
    assert (browser.asked[0].exchange.abandoned, browser.end) == (True, "abort")


def test_a_client_that_leaves_in_the_middle_cancels_the_request() -> None:
    browser = Browser()
    browser.send(long_head(), PIECE)
    browser.leave()
    assert browser.asked[0].exchange.abandoned


def test_a_client_that_sends_too_slowly_is_refused() -> None:
    browser = Browser()
    browser.send(CHUNKED, b"%x\r\n%b\r\n" % (MIN_UPLOAD_RATE_BYTES_PER_S, b"x" * MIN_UPLOAD_RATE_BYTES_PER_S))
    browser.wait(browser.site.options.request_arrival_timeout_s)
    assert browser.news() == b""
    browser.wait(2)
    assert browser.answer().status == 408
    assert browser.asked[0].exchange.abandoned


def test_time_in_which_the_replica_does_not_take_the_body_is_not_the_clients() -> None:
    browser = Browser()
    browser.send(long_head(), *[PIECE] * 4)
    assert not browser.transport.reading
    for _ in range(4 * 1000):
        browser.wait(0.25)
    assert browser.news() == b""


def test_an_upload_behind_another_request_waits_and_is_not_read_without_end() -> None:
    browser = Browser()
    browser.send(request("/first"), long_head(), *[PIECE] * 4)
    assert (len(browser.asked), browser.transport.reading) == (1, False)
    browser.asked[0].answer(b"")
    browser.settle()
    assert (len(browser.asked), browser.asked[1].body) == (2, PIECE * 4)
    browser.asked[1].grant(UPLOAD_WINDOW_SIZE_BYTES)
    browser.send(*[PIECE] * 8)
    assert browser.asked[1].complete


def test_a_client_that_expects_a_word_gets_it_and_then_sends() -> None:
    browser = Browser()
    browser.send(long_head(LONG, "Expect: 100-continue"))
    assert browser.news() == b"HTTP/1.1 100 Continue\r\n\r\n"
    browser.send(*[PIECE] * 4)
    assert browser.asked[0].body == PIECE * 4


def test_a_client_that_expects_a_word_is_refused_before_it_sends() -> None:
    browser = Browser()
    browser.send(request("nowhere:80", f"Content-Length: {LONG}", "Expect: 100-continue", method="OPTIONS"))
    assert (browser.answer().status, browser.asked) == (400, [])


def test_trailers_follow_a_body_in_chunks() -> None:
    browser = Browser()
    browser.get("/").start(b"abc")
    browser.asked[0].end(trailers=[(b"X-Sum", b"123"), (b"content-length", b"5")])
    assert browser.news().endswith(b"3\r\nabc\r\n0\r\nX-Sum: 123\r\n\r\n")


def test_trailers_that_are_none_cut_the_answer() -> None:
    browser = Browser()
    browser.get("/").start(b"abc")
    browser.asked[0].end(trailers=[(b"X-Sum\r\nX", b"123")])
    assert browser.end == "abort"


def test_frames_of_an_upload() -> None:
    sent: list[tuple[int, int, bytes]] = []

    class Recorder(ReplicaEnd):
        def send(self, kind: int, _stream: int, header: bytes = b"", body: bytes = b"", flags: int = 0) -> None:
            sent.append((kind, flags, body))

    browser = Browser()
    browser.site.root.waits = True
    browser.send(CHUNKED)
    [waiting] = browser.site.root.waiting
    replica = Recorder()
    waiting.channel, waiting.stream = replica, 1  # type: ignore[assignment]
    waiting.write(replica, 1, 0)  # type: ignore[arg-type]
    browser.send(b"1\r\na\r\n", b"0\r\n\r\n")
    assert sent == [(HTTP, MORE, b""), (CHUNK, 0, b"a"), (END, 0, b"")]
    assert CREDIT not in [kind for kind, _, _ in sent]
