"""Pieces of streams share writes."""

from salver.transport.wire import MORE, RESPONSE
from tests.unit.proxy.doubles import Browser, parsed


def test_the_first_byte_waits_for_nothing() -> None:
    browser = Browser()
    browser.get("/").start(b"first")
    assert b"first" in browser.transport.written


def test_pieces_that_come_together_share_a_write() -> None:
    browser = Browser()
    asked = browser.get("/")
    asked.start(b"first")
    before = len(browser.transport.writes)
    for number in range(10):
        asked.more(b"%d" % number)
    assert len(browser.transport.writes) == before
    browser.settle()
    assert len(browser.transport.writes) == before + 1
    asked.end()
    assert browser.answer().body == b"first0123456789"


def test_the_end_waits_for_nothing_and_comes_last() -> None:
    browser = Browser()
    asked = browser.get("/")
    asked.start(b"a")
    asked.more(b"b")
    asked.end(b"c")
    assert parsed(browser.transport.written)[0].body == b"abc"


def test_what_was_held_back_is_dropped_when_the_connection_is_cut() -> None:
    browser = Browser()
    asked = browser.get("/")
    asked.start(b"a")
    asked.more(b"b")
    asked.error()
    browser.settle()
    assert browser.end == "abort"


def test_two_streams_do_not_mix() -> None:
    browsers = [Browser(), Browser()]
    browsers[1].site.batches = browsers[0].site.batches
    asked = [browser.get("/") for browser in browsers]
    for each in asked:
        each.frame(RESPONSE, b"\x92\xcc\xc8\x90", b"", MORE)
    for number in range(3):
        for name, each in zip("xy", asked, strict=True):
            each.more(f"{name}{number}".encode())
    for each in asked:
        each.end()
    assert [browser.answer().body for browser in browsers] == [b"x0x1x2", b"y0y1y2"]
