"""Status lines and headers as bytes."""

import msgspec
import pytest

from salver.proxy.heads import Head, Heads, outcome_head
from salver.schema.outcomes import Outcome
from salver.transport.wire import ResponseHead


def test_a_head_is_written_as_it_was_given() -> None:
    head = Head(201, [(b"content-type", b"text/plain"), (b"X-Mine", b"1"), (b"x-mine", b"2")])
    assert head.text == b"HTTP/1.1 201 Created\r\ncontent-type: text/plain\r\nX-Mine: 1\r\nx-mine: 2\r\n"


def test_an_unknown_status_has_no_reason() -> None:
    assert Head(299, []).text == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 1000])
def test_what_is_no_final_status_is_no_head(status: int) -> None:
    with pytest.raises(ValueError, match="is no status of an answer"):
        Head(status, [])


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"keep-alive", b"Transfer-Encoding", b"upgrade", b"Trailer", b"Proxy-Connection"],
)
def test_what_belongs_to_one_connection_is_left_out(name: bytes) -> None:
    assert Head(200, [(name, b"chunked")]).whole == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("name", [b"X-Request-ID", b"Date"])
def test_what_the_proxy_writes_is_not_written_twice(name: bytes) -> None:
    assert Head(200, [(name, b"mine")]).text == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"x: y", b"a"),
        (b"x y", b"a"),
        (b"", b"a"),
        (b"\xe4", b"a"),
        (b"x", b"\x7f"),
    ],
)
def test_no_header_breaks_out_of_its_line(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="is no header"):
        Head(200, [header])


def test_values_may_hold_tabs_and_bytes_above_ascii() -> None:
    assert Head(200, [(b"x", b"a\tb \xe4")]).text.endswith(b"x: a\tb \xe4\r\n")


def test_the_length_of_a_body_is_that_of_the_body() -> None:
    head = Head(200, [(b"Content-Length", b"5")])
    assert head.length == 5
    assert head.sized(5) == head.whole == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
    assert head.sized(6) == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n"
    assert Head(200, []).sized(7) == b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n"


@pytest.mark.parametrize("lengths", [[b"1", b"2"], [b"-1"], [b"1,1"], [b""], [b"abc"], [b"9" * 30], [b"1", b"x"]])
def test_what_is_no_length_is_no_head(lengths: list[bytes]) -> None:
    with pytest.raises(ValueError, match="is no content-length"):
        Head(200, [(b"content-length", each) for each in lengths])


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    head = Head(status, [(b"content-length", b"5")])
    assert (head.bodyless, b"content-length" in head.whole, b"content-length" in head.sized(5)) == (True, False, False)


def encoded(status: int, *headers: tuple[bytes, bytes]) -> bytes:
    return msgspec.msgpack.encode(ResponseHead(status, list(headers)))


def test_the_same_head_is_made_once() -> None:
    heads = Heads()
    assert heads.get(encoded(200, (b"a", b"b"))) is heads.get(encoded(200, (b"a", b"b")))


def test_only_so_many_heads_are_kept() -> None:
    heads = Heads()
    for number in range(5000):
        heads.get(encoded(200, (b"set-cookie", b"%d" % number)))
    large = encoded(200, (b"a", b"b" * 1000))
    assert heads.get(large) is not heads.get(large)
    assert len(heads._cache) <= 4096


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode(["200", []]), msgspec.msgpack.encode(7)])
def test_what_cannot_be_decoded_is_no_head(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Heads().get(data)


def test_an_outcome_has_a_head_with_its_length() -> None:
    assert outcome_head(Outcome(404, b"gone")).whole == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 4\r\n"
    )
    assert outcome_head(Outcome(404, b"gone")) is outcome_head(Outcome(404, b"left"))
