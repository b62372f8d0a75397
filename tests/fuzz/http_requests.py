"""The proxy's side of HTTP/1.1 against h11, which knows nothing of it: both must see the same requests."""

import re
from typing import NamedTuple

import h11
from hypothesis import strategies as st

from salver.proxy.places import Places
from salver.proxy.routes import RouteTable
from salver.proxy.upgrades import PREFACE
from tests.fuzz.mutation import Input, inputs
from tests.unit.proxy.doubles import Browser, FakeSite, request, routes


class Parsed(NamedTuple):
    """A request as a parser saw it."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


REQUESTS = [
    request("/0"),
    request("/1?x=1", "X-A: b", "x-request-id: one"),
    request("/2", method="POST", body=b"0123456789" * 3),
    request("/3", "Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
    request("/4", "Connection: close"),
    request("/5", "Connection: keep-alive", version="1.0"),
    request("/6", "Expect: 100-continue", method="POST", body=b"abc"),
    request("/7", method="POST", body=b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    request("/8", "Upgrade: h2c", "Connection: upgrade"),
    request("http://a/9", method="HEAD"),
]

HEADERS = [
    "Content-Length: 3", "Content-Length: 0", "Content-Length:+3", "Content-Length: 3,3", "Content-Length : 3",
    "Content-Length: 0x3",
    "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: x, chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding: chunked\r\n ", " Transfer-Encoding: chunked", "transfer-encoding:\x0bchunked",
    "Transfer_Encoding: chunked",
    "Connection: close", "Connection: keep-alive", "Connection: upgrade", "Upgrade: websocket",
    "Expect: 100-continue",
    "Host: b", "X: \x00", "X:\r", "X: a\r\n\tb", ": x", "X",
]  # fmt: skip

WORDS = [
    *(header.encode("latin-1") + b"\r\n" for header in HEADERS),
    *b"GET |POST |HEAD |CONNECT |get |/| HTTP/1.1|HTTP/1.0|HTTP/1.9| HTTP/2.0|RTSP/1.0|http://|-|+|0x|_|%|#|?|*".split(
        b"|"
    ),
    *b"\r\n|\n|\r|\0|:| |\t|\x0b|,|;|\x80|\xff|0\r\n\r\n|3\r\nabc\r\n|0000000000|ffffffff|fffffffffffffffff".split(
        b"|"
    ),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"x" * 9000,
]

cases: st.SearchStrategy[Input] = inputs(REQUESTS, WORDS)


def check(case: Input) -> None:
    """Assert that the proxy sees no request that h11 does not see, and refuses where it sees fewer."""
    if case.data.lstrip(b"\r\n").startswith(PREFACE[:14]):
        return  # It speaks HTTP/2 from here on, of which h11 knows nothing.
    ours, over = _ours(case.pieces)
    site_of_theirs = _site()
    theirs, doubtful = _theirs(case.data, site_of_theirs)
    if doubtful:
        theirs, ours = theirs[: len(ours)], ours[: len(theirs)]
    assert ours == theirs[: len(ours)], f"h11 sees {theirs}"
    assert len(ours) == len(theirs) or over, f"we wait, and h11 sees {theirs}"


def _site() -> FakeSite:
    site = FakeSite()
    site.places = Places(RouteTable(routes(root="/")), site._router)
    return site


def _ours(pieces: list[bytes]) -> tuple[list[Parsed], bool]:
    """Return what reached the application whole, and whether the proxy has ended the connection."""
    site = _site()
    browser = Browser(site)
    for piece in pieces:
        browser.send(piece)
        while browser.asked and browser.asked[-1].complete and not browser.asked[-1].exchange.started:
            browser.asked[-1].answer(b"")
            browser.settle()
    over = browser.end != ""
    assert browser.end != "abort", "a bug of our own"
    browser.leave()
    assert site.open == set()
    whole = [asked for asked in browser.asked if asked.complete]
    heads = [(asked.head, asked.body) for asked in whole]
    return [Parsed(head.method, head.raw_path, head.query, _plain(head.headers), body) for head, body in heads], over


def _plain(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers as h11 gives them: without blanks around values, codings in small letters."""
    return [
        (name, value.strip(b" \t").lower() if name == b"transfer-encoding" else value.strip(b" \t"))
        for name, value in headers
    ]


def _theirs(data: bytes, site: FakeSite) -> tuple[list[Parsed], bool]:
    """Return what h11 sees, and whether it stopped at something that is allowed but that it does not take."""
    found: list[Parsed] = []
    while data := data.lstrip(b"\r\n"):
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        try:
            head = connection.next_event()
            if not isinstance(head, h11.Request):
                return found, False
            body = _body(connection)
        except h11.RemoteProtocolError:
            return found, _is_odd(data)
        if body is None:
            return found, False
        place, query = site.places.find(head.target)
        if place.outcome is None:
            headers = [(bytes(name), bytes(value)) for name, value in head.headers]
            found.append(Parsed(head.method.decode(), place.raw_path, query, headers, body))
        if connection.their_state in (h11.MUST_CLOSE, h11.CLOSED) and not _stays(head):
            return found, False
        data = connection.trailing_data[0]
    return found, False


def _stays(head: h11.Request) -> bool:
    """Say whether an old client's connection stays, which h11 never lets it do."""
    tokens = b",".join(value for name, value in head.headers if name == b"connection").lower().split(b",")
    options = {each.strip() for each in tokens}
    return head.http_version == b"1.0" and b"keep-alive" in options and b"close" not in options


def _body(connection: h11.Connection) -> bytes | None:
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return body
        else:
            return None


def _is_odd(data: bytes) -> bool:
    """Say whether a request begins as RFC 9112 §3 allows and h11 does not: with more than one space."""
    return re.match(rb"[A-Z-]+ +[^ \r\n]+ +HTTP/1\.[01]\r\n", data) is not None and b"  " in data.partition(b"\r\n")[0]
