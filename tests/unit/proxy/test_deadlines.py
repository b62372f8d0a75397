"""How long clients wait, as they say or as the option says, and requests that go on without their client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.proxy.deadlines import timeout_s_of
from salver.proxy.limits import GRANT_SIZE_BYTES
from salver.schema.http import HTTPOptions
from tests.unit.proxy.doubles import Asked, Browser, FakeSite, ReplicaEnd, request

STAY = "x-request-disconnect-disabled: ?1"


def limited(request_timeout_s: float | None) -> Browser:
    """Return a client of a proxy with this limit."""
    site = FakeSite()
    site.options = HTTPOptions(request_timeout_s=request_timeout_s)
    return Browser(site)


@pytest.mark.parametrize("default_s", [None, 7.0])
@pytest.mark.parametrize(
    ("header", "asked_s"),
    [(b"3", 3), (b"0.25", 0.25), (b"+1e1", 10), (b".5", 0.5), (b"0", None), (b"-1", None), (b"-0.0", None)],
)
def test_a_header_says_how_long_a_request_may_take(
    header: bytes, asked_s: float | None, default_s: float | None
) -> None:
    assert timeout_s_of(header, default_s) == asked_s


@pytest.mark.parametrize("header", [b"", b"soon", b"1_0", b"nan", b"inf", b"-inf", b"1e999", b"1,2", b"\xff", b"0x10"])
def test_a_header_that_says_nothing_leaves_the_default(header: bytes) -> None:
    assert timeout_s_of(header, 7.0) == 7.0
    assert timeout_s_of(header, None) is None


@given(st.binary(max_size=12), st.one_of(st.none(), st.floats()))
def test_a_timeout_is_positive_or_none_whatever_is_given(header: bytes, default_s: float | None) -> None:
    timeout_s = timeout_s_of(header, default_s)
    assert timeout_s is None or timeout_s > 0


@pytest.mark.parametrize("timeout_s", [0.05, 0.1, 1.9, 30])
def test_a_request_ends_near_its_time_and_not_before(timeout_s: float) -> None:
    browser = Browser()
    browser.get("/", f"X-Request-Timeout-Seconds: {timeout_s}", "x-request-id: abc")
    browser.site.loop.pass_time(timeout_s - 0.001)
    assert browser.news() == b""
    browser.site.loop.pass_time(0.02 if timeout_s < 10 else 0.2)
    answer = browser.answer()
    assert (answer.status, answer.body) == (408, f"Request abc timed out after {float(timeout_s)}s.".encode())
    assert browser.site.root.cancelled == [browser.asked[0].exchange]


def test_each_request_of_a_connection_has_its_own_time() -> None:
    browser = limited(5)
    for number, (headers, after_s) in enumerate(
        [([], 5.0), (["x-request-timeout-seconds: 1"], 1.0), ([], 5.0), (["x-request-timeout-seconds: 20"], 20.0)]
    ):
        browser.get(f"/{number}", *headers)
        browser.site.loop.pass_time(after_s - 0.1)
        assert browser.news() == b""
        browser.site.loop.pass_time(0.3)
        assert browser.answer().status == 408


def test_answered_requests_are_not_timed_out() -> None:
    browser = limited(0.5)
    for _ in range(10):
        browser.get("/").answer(b"x")
        browser.site.loop.pass_time(0.3)
        assert browser.answer().status == 200
    browser.get("/", "x-request-timeout-seconds: 0")
    browser.site.loop.pass_time(100)
    assert browser.news() == b""


def test_a_started_answer_is_cut_at_its_deadline() -> None:
    browser = limited(1)
    browser.get("/").start(b"some")
    browser.site.loop.pass_time(1.1)
    assert browser.end == "abort"
    assert len(browser.site.root.cancelled) == 1


def test_the_replica_is_told_what_is_left_of_the_time() -> None:
    browser = limited(5)
    assert browser.get("/").head.timeout_s == 5
    router = browser.site.app
    router.waits = True
    browser.site.root.asked[-1].answer()
    browser.send(request("/app"))
    browser.site.loop.now += 3
    replica = ReplicaEnd()
    router.waiting[0].write(replica, 1, 0)  # type: ignore[arg-type]
    assert replica.request.timeout_s == 2
    browser.site.loop.now += 3
    router.waiting[0].write(replica, 1, 0)  # type: ignore[arg-type]
    assert replica.request.timeout_s == 0


def test_a_replica_is_told_nothing_where_there_is_no_limit() -> None:
    assert Browser().get("/").head.timeout_s is None


def test_a_waiting_request_leaves_the_queue_at_its_deadline() -> None:
    browser = limited(1)
    browser.site.root.waits = True
    browser.send(request("/"))
    browser.site.loop.pass_time(1.1)
    assert browser.answer().status == 408
    assert browser.site.root.cancelled == browser.site.root.waiting


def test_connections_that_are_gone_are_not_watched() -> None:
    browser = limited(60)
    browser.get("/")
    assert len(browser.site.deadlines) == 1
    browser.leave()
    assert len(browser.site.deadlines) == 0


# Requests that outlive their clients


def left(browser: Browser, *headers: str) -> Asked:
    """Ask, and leave."""
    asked = browser.get("/", STAY, *headers)
    browser.leave()
    return asked


def test_a_client_that_leaves_cancels_its_request() -> None:
    browser = Browser()
    browser.get("/", "x-request-disconnect-disabled: ?0")
    browser.leave()
    assert (len(browser.site.root.cancelled), browser.site.open) == (1, set())


def test_a_request_may_go_on_without_its_client() -> None:
    browser = Browser()
    asked = left(browser)
    assert browser.site.root.cancelled == []
    assert len(browser.site.unattended) == 1
    asked.answer(b"for nobody")
    assert (browser.site.unattended, browser.news()) == (set(), b"")


def test_a_stream_that_nobody_reads_goes_on_to_its_end() -> None:
    browser = Browser()
    asked = browser.get("/", STAY)
    asked.start(b"x" * 10)
    browser.connection.pause_writing()
    asked.more(b"y" * GRANT_SIZE_BYTES)
    assert asked.replica.credit == 0
    browser.leave()
    assert asked.replica.credit == GRANT_SIZE_BYTES + 10
    for _ in range(3):
        asked.more(b"z" * GRANT_SIZE_BYTES)
    assert asked.replica.credit == 4 * GRANT_SIZE_BYTES + 10
    asked.end()
    assert browser.site.unattended == set()


@pytest.mark.parametrize("end", ["error", "lost", "malformed"])
def test_a_request_without_its_client_may_fail(end: str) -> None:
    browser = Browser()
    asked = left(browser)
    if end == "error":
        asked.error()
    elif end == "lost":
        asked.exchange.on_lost("shop#model#1")
    else:
        asked.answer(b"", status=17)
    assert browser.site.unattended == set()


def test_a_stream_without_its_client_may_break_off() -> None:
    browser = Browser()
    asked = browser.get("/", STAY)
    asked.start(b"x")
    browser.leave()
    asked.error()
    assert browser.site.unattended == set()


def test_a_request_without_its_client_has_its_deadline_still() -> None:
    browser = Browser()
    left(browser, "x-request-timeout-seconds: 2")
    browser.site.loop.pass_time(1.9)
    assert len(browser.site.unattended) == 1
    browser.site.loop.pass_time(0.2)
    assert (browser.site.unattended, len(browser.site.root.cancelled), len(browser.site.deadlines)) == (set(), 1, 0)


def test_only_the_request_that_runs_goes_on() -> None:
    browser = Browser()
    browser.send(request("/1", STAY) + request("/2", STAY))
    browser.leave()
    browser.asked[0].answer()
    browser.settle()
    assert len(browser.asked) == 1
