"""What is sent, what must come back, and what a replica may see: one table."""

from typing import NamedTuple

from tests.conformance.recorder import Seen


class Case(NamedTuple):
    """Some bytes and what must become of them.

    Attributes:
        statuses: Of the answers, in order.
        seen: What reaches the replica whole, in order.
        ends: The proxy ends the connection after the answers.
    """

    data: bytes
    statuses: tuple[int, ...]
    seen: tuple[Seen, ...] = ()
    ends: bool = True


SECRET = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""Where a body is taken for a request, this reaches the replica, or draws an answer too many."""


def request(*lines: bytes, start: bytes = b"POST /x HTTP/1.1", body: bytes = b"") -> bytes:
    """Return a request with a Host and more header lines."""
    return b"\r\n".join([start, b"Host: a", *lines, b"", b""]) + body


def refused(status: int, *lines: bytes, start: bytes = b"POST /x HTTP/1.1", body: bytes = b"") -> Case:
    """Return the case of a request that nobody sees."""
    return Case(request(*lines, start=start, body=body), (status,))


def accepted(seen: Seen, *lines: bytes, start: bytes = b"", body: bytes = b"", ends: bool = False) -> Case:
    """Return the case of a request that reaches the replica."""
    start = start or f"{seen.method} {seen.target} HTTP/1.1".encode()
    return Case(request(*lines, start=start, body=body), (200,), (seen,), ends)


POST = Seen("POST", "/x", b"abc")
EMPTY = Seen("POST", "/x")
GET = Seen("GET", "/x")
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: 3"
ENDLESS = 400_000
"""More than the proxy reads at once."""
DONE = b"0\r\n\r\n"

LENGTHS = {
    "a length": accepted(POST, LENGTH, body=b"abc"),
    "a length with zeros": accepted(POST, b"Content-Length: 0003", body=b"abc"),
    "a length between blanks": accepted(POST, b"Content-Length: \t 3 \t", body=b"abc"),
    "no length and no body": accepted(EMPTY),
    "a body of a GET is a body": accepted(
        Seen("GET", "/x", SECRET), b"Content-Length: %d" % len(SECRET), body=SECRET
    ),
    "a body of a DELETE is a body": accepted(
        Seen("DELETE", "/x", SECRET), b"Content-Length: %d" % len(SECRET), body=SECRET
    ),
    "two lengths": refused(400, LENGTH, b"Content-Length: 4", body=b"abc" + SECRET),
    "two lengths, the second shorter": refused(400, LENGTH, b"Content-Length: 0", body=SECRET),
    "two equal lengths": refused(400, LENGTH, LENGTH, body=b"abc" + SECRET),
    "lengths in two cases": refused(400, LENGTH, b"content-length: 40", body=b"abc" + SECRET),
    **{
        f"length {value!r}": refused(400, b"Content-Length: " + value, body=b"abc" + SECRET)
        for value in (
            b"3, 3", b"3,4", b"+3", b"-3", b"-0", b"0x3", b"3_0", b"3 0", b"3.0", b"1e1", b"3;", b"", b" ", b"\t",
            b"abc", b"\xd9\xa3", b"3\x0b", b"\x0c3", b"3\0", b"9" * 30,
        )
    },
    "a length beyond what is allowed": refused(413, b"Content-Length: 9999999999999999999"),
}  # fmt: skip

CODINGS = {
    "chunks": accepted(POST, CHUNKED, body=b"3\r\nabc\r\n" + DONE),
    "chunks in capitals": accepted(POST, b"TRANSFER-ENCODING: CHUNKED", body=b"3\r\nabc\r\n" + DONE),
    "chunked between blanks": accepted(POST, b"Transfer-Encoding: \t chunked  ", body=b"3\r\nabc\r\n" + DONE),
    "no chunk but the last": accepted(EMPTY, CHUNKED, body=DONE),
    "a length, then chunks": refused(400, LENGTH, CHUNKED, body=DONE + SECRET),
    "chunks, then a length": refused(400, CHUNKED, LENGTH, body=DONE + SECRET),
    "chunks and a length of nothing": refused(400, CHUNKED, b"Content-Length: 0", body=DONE + SECRET),
    "chunked in two lines": refused(400, CHUNKED, CHUNKED, body=DONE + SECRET),
    "a length and no coding": refused(400, LENGTH, b"Transfer-Encoding: identity", body=b"abc" + SECRET),
    "chunks from an old client": refused(400, CHUNKED, start=b"POST /x HTTP/1.0", body=DONE + SECRET),
    "chunks from an old client that stays": refused(
        400, CHUNKED, b"Connection: keep-alive", start=b"POST /x HTTP/1.0", body=DONE + SECRET
    ),
    **{
        f"coding {value!r}": refused(status, b"Transfer-Encoding: " + value, body=DONE + SECRET)
        for value, status in (
            (b"chunked, chunked", 400),
            (b"chunked, identity", 400),
            (b"chunked,", 400),
            (b",chunked", 501),
            (b"identity, chunked", 501),
            (b"gzip, chunked", 501),
            (b"identity", 501),
            (b"gzip", 501),
            (b"xchunked", 501),
            (b"chunkedx", 501),
            (b"chunked;q=1", 501),
            (b'"chunked"', 501),
            (b"chun ked", 501),
            (b"chunked\x0b", 400),
            (b"\x0bchunked", 400),
            (b"chunked\0", 400),
            (b"\xffchunked", 501),
            (b"", 400),
            (b"cow", 501),
        )
    },
    "a name that is almost the coding's": Case(
        request(b"Transfer_Encoding: chunked", body=DONE + SECRET), (200, 400), (EMPTY,)
    ),
    "a name with a letter too many": Case(
        request(b"Transfer-Encodings: chunked", body=DONE + SECRET), (200, 400), (EMPTY,)
    ),
}

CHUNKS = {
    "a chunk with zeros": accepted(POST, CHUNKED, body=b"00003\r\nabc\r\n000\r\n\r\n"),
    "a size in capitals": accepted(Seen("POST", "/x", b"0123456789"), CHUNKED, body=b"A\r\n0123456789\r\n" + DONE),
    "an extension": accepted(POST, CHUNKED, body=b'3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n'),
    "a trailer is no header": accepted(POST, CHUNKED, body=b"3\r\nabc\r\n0\r\nHost: b\r\nX: y\r\n\r\n"),
    "a length among trailers": refused(400, CHUNKED, body=b"3\r\nabc\r\n0\r\nContent-Length: 99\r\n\r\n" + SECRET),
    "a coding among trailers": refused(400, CHUNKED, body=b"3\r\nabc\r\n0\r\nTransfer-Encoding: x\r\n\r\n" + SECRET),
    "a chunk that looks like a request": accepted(
        Seen("POST", "/x", SECRET), CHUNKED, body=b"%x\r\n%b\r\n" % (len(SECRET), SECRET) + DONE
    ),
    **{
        f"chunk {data!r}": refused(400, CHUNKED, body=data + DONE + SECRET)
        for data in (
            b"-3\r\nabc\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b" 3\r\nabc\r\n", b"\t3\r\nabc\r\n",
            b"3_0\r\nabc\r\n", b"g\r\nabc\r\n", b"\r\nabc\r\n", b"\0\r\n", b"3\0\r\nabc\r\n",
            b"10000000000000003\r\nabc\r\n", b"fffffffffffffffff\r\nabc\r\n", b"3\nabc\r\n", b"3\r\nabc\n",
            b"3\rabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabc", b"3\r\nabc\r", b"3\r\nabc\r\r\n", b"3;a\nabc\r\n",
            b"3;a\rb\r\nabc\r\n", b"3;\0\r\nabc\r\n", b'3;a="b\r\nc"\r\nabc\r\n', b"3;a=b\x0b\r\nabc\r\n",
            b"3\x0b\r\nabc\r\n",
        )
    },
    "an end with bare LFs": refused(400, CHUNKED, body=b"0\n\n" + SECRET),
    "an end with bare CRs": refused(400, CHUNKED, body=b"0\r\r" + SECRET),
    "a trailer that is none": refused(400, CHUNKED, body=b"0\r\nno colon\r\n\r\n" + SECRET),
    "a trailer that is folded": refused(400, CHUNKED, body=b"0\r\nX: a\r\n b\r\n\r\n" + SECRET),
    "trailers without end": refused(431, CHUNKED, body=b"0\r\n" + b"X: " + b"y" * ENDLESS),
    "an extension without end": refused(431, CHUNKED, body=b"3;" + b"x" * ENDLESS),
}  # fmt: skip

HEADERS = {
    "a header without a value": accepted(GET, b"X:"),
    "a header with bytes beyond ASCII": accepted(GET, b"X: \xff\x80"),
    "headers of any name": accepted(GET, b"!#$%&'*+-.^_`|~09az: 1"),
    **{
        f"header {line!r}": refused(400, line, start=b"GET /x HTTP/1.1", body=SECRET)
        for line in (
            b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b"\tX: a", b"X : a", b"X\t: a", b": a", b"no colon", b"X",
            b"X\0: a",
            b"X: a\0b", b"X: a\rb", b"X: a\nb", b"X: a\nTransfer-Encoding: chunked",
            b"X: a\rTransfer-Encoding: chunked",
            b"X: a\x0bb", b"X: \x7f", b"X: \x1b[0m", b"X(: a", b"X\xff: a", b"\xffX: a", b"X Y: a", b"X\r: a", b"\0",
            b"\x0bTransfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Content-Length : 3",
            b"Transfer-Encoding\0: chunked", b"Transfer-Encoding\r\n: chunked", b"X@Y: a", b'"X": a', b"X/: a",
        )
    },
    "white space before the first header": Case(
        b"GET /x HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n" + SECRET, (400,)
    ),
    "lines that end in LF": Case(b"GET /x HTTP/1.1\nHost: a\n\n" + SECRET, (400,)),
    "lines that end in CR": Case(b"GET /x HTTP/1.1\rHost: a\r\r" + SECRET, (400,)),
    "an end in LF": Case(b"GET /x HTTP/1.1\r\nHost: a\r\n\n" + SECRET, (400,)),
    "too many headers": refused(431, *[b"X: y"] * 200),
    "too large a header": refused(431, b"X: " + b"y" * 40_000),
    "too large headers": refused(431, *[b"X: " + b"y" * 1000] * 40),
    "a header without end": Case(b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * ENDLESS, (431,)),
    "a header name without end": Case(b"GET /x HTTP/1.1\r\nHost: a\r\nX" + b"y" * ENDLESS, (431,)),
}  # fmt: skip

HOSTS = {
    f"host {value!r}": Case(b"GET /x HTTP/1.1\r\nHost:%b\r\n\r\n" % value, (200,), (GET,), False)
    for value in (
        b"", b" a", b" a:80", b" a.example.", b" [::1]", b" [::1]:80", b" 127.0.0.1:8000", b"a", b" a_b", b" a:",
        b" xn--nxasmq6b:1", b" %41", b" a-b.c~d!$&'()*+,;=",
    )
} | {
    "no host": Case(b"GET /x HTTP/1.1\r\n\r\n" + SECRET, (400,)),
    "no host from an old client": Case(b"GET /x HTTP/1.0\r\n\r\n", (200,), (GET,)),
    "two hosts": Case(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + SECRET, (400,)),
    "two equal hosts": Case(b"GET /x HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n" + SECRET, (400,)),
    "two hosts from an old client": Case(b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n" + SECRET, (400,)),
    **{
        f"host {value!r} is none": Case(b"GET /x HTTP/1.1\r\nHost: %b\r\n\r\n" % value + SECRET, (400,))
        for value in (b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a:b", b"a:80:80", b"[::1", b"::1", b"a\\b", b"\xff",
        b"<a>")
    },
}  # fmt: skip

TARGETS = {
    "a query": accepted(Seen("GET", "/x?a=b&c")),
    "an empty query": accepted(GET, start=b"GET /x? HTTP/1.1"),
    "an absolute target": accepted(Seen("GET", "/x?y"), start=b"GET http://other/x?y HTTP/1.1"),
    "an absolute target without a path": accepted(Seen("GET", "/"), start=b"GET http://other HTTP/1.1"),
    "a fragment is left out": accepted(GET, start=b"GET /x#y HTTP/1.1"),
    "two slashes are a path": accepted(Seen("GET", "//other/x"), start=b"GET //other/x HTTP/1.1"),
    "dots are not resolved": accepted(Seen("GET", "/a/../x"), start=b"GET /a/../x HTTP/1.1"),
    "a percent sign": accepted(Seen("GET", "/x%"), start=b"GET /x% HTTP/1.1"),
    "an encoded line end": accepted(Seen("GET", "/x\r\nA: b"), start=b"GET /x%0d%0aA:%20b HTTP/1.1"),
    "the server": accepted(Seen("OPTIONS", "*"), start=b"OPTIONS * HTTP/1.1"),
    "a GET of the server": refused(400, start=b"GET * HTTP/1.1"),
    **{
        # The connection stays: nobody doubts where this request ends.
        f"target {target!r} is no path": Case(
            request(start=b"GET " + target + b" HTTP/1.1") + SECRET, (400, 200), (Seen("GET", "/smuggled"),), False
        )
        for target in (b"http://", b"http:///x", b"*x")
    },
    "an authority": refused(400, start=b"GET a:80 HTTP/1.1"),
    "a tunnel": refused(501, start=b"CONNECT a:80 HTTP/1.1", body=SECRET),
    "a long target": refused(414, start=b"GET /" + b"x" * 20_000 + b" HTTP/1.1"),
    "a target without end": Case(b"GET /" + b"x" * 40_000, (414,)),
    **{
        f"target {target!r}": refused(400, start=b"GET " + target + b" HTTP/1.1", body=SECRET)
        for target in (
            b"x", b"", b"/\0", b"/\x01", b"/\x7f", b"/\x80", b"/\xc3\xa4", b"/ x", b"/\tx", b"/\rx", b"/\nx", b"?x",
            b"http:/x", b"/x HTTP/1.1 ", b"http://a b/",
        )
    },
}  # fmt: skip

STARTS = {
    "an empty line before": Case(b"\r\n" + request(start=b"GET /x HTTP/1.1"), (200,), (GET,), False),
    "an old client": Case(b"GET /x HTTP/1.0\r\n\r\n" + SECRET, (200,), (GET,)),
    "an old client that stays": Case(
        b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + SECRET, (200, 200), (GET, Seen("GET", "/smuggled")),
        False
    ),
    "no version": Case(b"GET /x\r\n\r\n" + SECRET, (505,)),
    "no version and no end": Case(b"GET /x\r\n" + SECRET, (400,)),
    # RFC 9112 §3 lets a server take any white space for one space.
    "two spaces before the target": accepted(GET, start=b"GET  /x HTTP/1.1"),
    "two spaces after the target": accepted(GET, start=b"GET /x  HTTP/1.1"),
    "TLS": Case(bytes.fromhex("16030100a5010000a10303") + bytes(100), (400,)),
    "HTTP/2 after HTTP/1.1": Case(
        request(start=b"GET /x HTTP/1.1") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), (200, 400), (GET,)
    ),
    **{
        f"start {line!r}": refused(400, start=line, body=SECRET)
        for line in (
            b"get /x HTTP/1.1", b"Get /x HTTP/1.1", b" GET /x HTTP/1.1",
            b"GET\t/x HTTP/1.1", b"GET /x\tHTTP/1.1", b"GET /x HTTP/1.1 ", b"GET /x HTTP/1.1x", b"GET /x HTTP/1.1\t",
            b"GET /x http/1.1", b"GET /x HTTP/1.2", b"GET /x HTTP/1", b"GET /x HTTP/11", b"GET /x HTTP/1.",
            b"GET /x HTTP/.1",
            b"GET /x HTTP/1.10", b"GET /x HTTP/01.1", b"GET /x HTTP/ 1.1", b"GET /x HTP/1.1", b"GET /x HTTPS/1.1",
            b"GET /x ICE/1.0", b"SOURCE /x ICE/1.0", b"DESCRIBE /x RTSP/1.0", b"SETUP /x RTSP/1.0",
            b"GE T /x HTTP/1.1",
            b"G\0ET /x HTTP/1.1", b"FROBNICATE /x HTTP/1.1", b"M" * 40_000 + b" /x HTTP/1.1", b"/x HTTP/1.1",
            b"GET", b"HTTP/1.1 200 OK", b"\0GET /x HTTP/1.1", b"\xef\xbb\xbfGET /x HTTP/1.1",
        )
    },
    **{
        f"start {line!r}": refused(505, start=line, body=SECRET)
        for line in (b"GET /x HTTP/0.9", b"GET /x HTTP/2.0")
    },
}  # fmt: skip

NEXT = request(start=b"GET /next HTTP/1.1")
BOTH = (GET, Seen("GET", "/next"))
STAYING = {
    "keep-alive": Case(request(b"Connection: keep-alive", start=b"GET /x HTTP/1.1") + NEXT, (200, 200), BOTH, False),
    "an unknown option": Case(request(b"Connection: x", start=b"GET /x HTTP/1.1") + NEXT, (200, 200), BOTH, False),
    **{
        f"connection {value!r}": Case(request(b"Connection: " + value, start=b"GET /x HTTP/1.1") + NEXT, (200,), (GET,))
        for value in (
            b"close",
            b"Close",
            b"close, x",
            b"x, close",
            b"keep-alive, close",
            b"close\r\nConnection: keep-alive",
        )
    },
    "an upgrade without the option": Case(
        request(b"Upgrade: h2c", start=b"GET /x HTTP/1.1") + NEXT, (200, 200), BOTH, False
    ),
}

OFFER = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
UPGRADES = {
    # The answer is the last one on this connection: after it, both sides might mean another protocol.
    "an upgrade": accepted(GET, *OFFER, body=SECRET, ends=True),
    "an upgrade with a length": accepted(POST, *OFFER, LENGTH, body=b"abc" + SECRET, ends=True),
    "an upgrade with a length of nothing": accepted(EMPTY, *OFFER, b"Content-Length: 0", body=SECRET, ends=True),
    "an upgrade with chunks": accepted(POST, CHUNKED, *OFFER, body=b"3\r\nabc\r\n" + DONE + SECRET, ends=True),
    "an upgrade with a body that is a request": accepted(
        Seen("POST", "/x", SECRET), *OFFER, b"Content-Length: %d" % len(SECRET), body=SECRET, ends=True
    ),
    "an upgrade with a body to a WebSocket": accepted(
        POST, LENGTH, b"Connection: upgrade", b"Upgrade: websocket", body=b"abc" + SECRET, ends=True
    ),
    "an upgrade with two lengths": refused(400, *OFFER, LENGTH, b"Content-Length: 4", body=b"abc" + SECRET),
    "an upgrade with a length and chunks": refused(400, *OFFER, LENGTH, CHUNKED, body=DONE + SECRET),
    "an upgrade with a bad chunk": refused(400, *OFFER, CHUNKED, body=b"x\r\n" + SECRET),
    "an upgrade with trailers without end": refused(431, *OFFER, CHUNKED, body=b"0\r\nX: " + b"y" * ENDLESS),
}

TABLE = {**LENGTHS, **CODINGS, **CHUNKS, **HEADERS, **HOSTS, **TARGETS, **STARTS, **STAYING, **UPGRADES}
