"""Bodies that are longer than an application takes."""

import pytest

from salver.handle.router import Router
from salver.proxy.places import Places
from salver.proxy.routes import RouteTable
from salver.schema.ids import DeploymentID
from salver.schema.topics import Route, Routes
from tests.unit.proxy.doubles import Browser, FakeSite, StubRouter, request


@pytest.mark.parametrize(
    ("size", "status"),
    [(0, 200), (9, 200), (10, 200), (11, 413), (100_000, 413)],
)
def test_a_body_may_be_as_long_as_the_limit(size: int, status: int) -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/app", method="POST", body=b"x" * size))
    for asked in browser.site.app.asked:
        asked.answer(b"taken")
    assert browser.answer().status == status


def test_a_body_in_chunks_is_counted() -> None:
    browser = Browser(FakeSite(max_body=10))
    chunk = b"5\r\nhello\r\n"
    browser.send(request("/", "Transfer-Encoding: chunked", method="POST") + 3 * chunk + b"0\r\n\r\n")
    assert (browser.answer().status, browser.asked) == (413, [])


def test_a_stream_is_refused_as_soon_as_it_is_too_long() -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/", "Transfer-Encoding: chunked", method="POST"), b"a\r\n0123456789\r\n")
    [asked] = browser.asked
    assert asked.body == b"0123456789"
    browser.send(b"1\r\n!\r\n" + request("/smuggled"))
    assert (browser.answer().status, asked.exchange.abandoned, asked.body) == (413, True, b"0123456789")
    assert (len(browser.asked), browser.end) == (1, "eof")


def test_a_stream_that_is_answered_already_is_cut_when_it_is_too_long() -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/", "Transfer-Encoding: chunked", method="POST"))
    browser.asked[0].start(b"begun")
    browser.send(b"b\r\n0123456789!\r\n")
    assert (browser.end, browser.asked[0].exchange.abandoned) == ("abort", True)


def test_a_client_that_expects_a_word_is_refused_before_it_sends_too_much() -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/", "Expect: 100-continue", "Content-Length: 11", method="POST"))
    assert browser.answer().status == 413


@pytest.mark.parametrize("length", ["010", "0" * 5000 + "10"])
def test_zeros_in_front_of_a_length_are_nothing(length: str) -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/", f"Content-Length: {length}", method="POST") + b"0123456789")
    assert browser.asked[-1].body == b"0123456789"


def test_the_answer_says_what_is_allowed() -> None:
    browser = Browser(FakeSite(max_body=10))
    browser.send(request("/", method="PUT", body=b"x" * 11))
    assert browser.answer().body == b"Content Too Large: at most 10 bytes are allowed."


@pytest.mark.parametrize(
    ("own", "general", "limit"), [(None, None, None), (None, 5, 5), (7, 5, 7), (0, 5, 0), (7, None, 7)]
)
def test_what_an_application_says_comes_before_what_the_proxy_says(
    own: int | None, general: int | None, limit: int | None
) -> None:
    table = RouteTable(Routes((Route("/", "app", DeploymentID("Ingress", "app"), own),)))
    router: Router = StubRouter("app")  # type: ignore[assignment]
    places = Places(table, lambda _: router, general)
    for _ in range(2):
        assert places.find(b"/x")[0].max_body_size_bytes == limit
