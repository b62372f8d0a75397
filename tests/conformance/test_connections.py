"""Pipelines, expectations, methods without bodies, and clients that come and go slowly or at the wrong moment."""

from collections.abc import Iterator

import pytest

from tests.conformance.cases import CHUNKED, DONE, GET, LENGTH, POST, SECRET, request
from tests.conformance.recorder import Seen
from tests.conformance.sockets import Peer
from tests.conformance.target import Target
from tests.waiting import wait_until_sync

CONTINUE = b"Expect: 100-continue"


@pytest.fixture
def peer(target: Target) -> Iterator[Peer]:
    """A new client; the application has forgotten what was asked before."""
    target.look()
    with target.peer() as each:
        yield each
    target.check_unharmed()


# Pipelines


def test_pipelined_requests_are_answered_in_order(target: Target, peer: Peer) -> None:
    methods = ["GET", "HEAD", "POST", "GET", "DELETE", "HEAD", "PUT"] * 10
    asked = [Seen(method, f"/{number}", b"x" * (number % 3)) for number, method in enumerate(methods)]
    peer.send(
        b"".join(
            request(
                b"Content-Length: %d" % len(each.body),
                start=f"{each.method} {each.target} HTTP/1.1".encode(),
                body=each.body,
            )
            for each in asked
        )
    )
    answers = [peer.answer(each.method) for each in asked]
    bodies = [b"" if each.method == "HEAD" else each.target.encode() for each in asked]
    assert [answer.body for answer in answers] == bodies
    assert target.look().whole == asked


def test_nothing_is_read_after_a_request_that_ends_the_connection(target: Target, peer: Peer) -> None:
    peer.send(
        request(start=b"GET /x HTTP/1.1"), request(b"Connection: close", start=b"GET /x HTTP/1.1") + SECRET, SECRET
    )
    assert [peer.answer().body, peer.answer().body, peer.rest()] == [b"/x", b"/x", b""]
    assert target.look().whole == [GET, GET]


def test_those_before_a_broken_request_are_answered(target: Target, peer: Peer) -> None:
    peer.send(request(LENGTH, body=b"abc") * 3 + request(LENGTH, CHUNKED, body=DONE) + SECRET)
    assert [peer.answer().status for _ in range(4)] == [200, 200, 200, 400]
    assert peer.ended()
    assert target.look().whole == [POST] * 3


# Expectations


@pytest.mark.parametrize("framing", [(LENGTH, b"abc"), (CHUNKED, b"3\r\nabc\r\n" + DONE)], ids=["length", "chunks"])
def test_a_client_that_waits_is_told_to_go_on(target: Target, peer: Peer, framing: tuple[bytes, bytes]) -> None:
    header, body = framing
    peer.send(request(header, CONTINUE))
    interim = peer.answer()
    assert (interim.status, interim.headers) == (100, {})
    peer.send(body)
    assert peer.answer().body == b"/x"
    assert target.look().whole == [POST]


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_a_client_that_does_not_wait_is_answered(target: Target, peer: Peer, value: bytes) -> None:
    peer.send(request(LENGTH, b"Expect: " + value, body=b"abc") + SECRET)
    statuses = [peer.answer().status]
    if statuses == [100]:
        statuses = [peer.answer().status]
    assert [*statuses, peer.answer().body] == [200, b"/smuggled"]
    assert target.look().whole == [POST, Seen("GET", "/smuggled")]


@pytest.mark.parametrize("expectation", [b"Expect: 200-ok", b"Expect:", b"Expect: 100-continue, x"])
def test_another_expectation_is_not_waited_for(target: Target, peer: Peer, expectation: bytes) -> None:
    peer.send(request(LENGTH, expectation, body=b"abc"))
    assert peer.answer().status == 200


def test_an_old_client_is_not_told_to_go_on(target: Target, peer: Peer) -> None:
    peer.send(request(LENGTH, CONTINUE, start=b"POST /x HTTP/1.0", body=b"abc"))
    assert (peer.answer().status, peer.rest()) == (200, b"")


def test_a_client_that_expects_to_be_refused_need_not_send_its_body(peer: Peer) -> None:
    peer.send(request(b"Content-Length: 9999999999999999999", CONTINUE))
    assert (peer.answer().status, peer.rest()) == (413, b"")


def test_who_leaves_instead_of_going_on_leaves_nothing(target: Target, peer: Peer) -> None:
    peer.send(request(LENGTH, CONTINUE))
    assert peer.answer().status == 100
    peer.finish()
    peer.rest()
    wait_until_sync(lambda: target.look().running == 0, within_s=10, what="an end of the handler")


# Methods, statuses and versions


def test_head_is_answered_as_get_without_the_body(peer: Peer) -> None:
    peer.send(request(start=b"GET /x HTTP/1.1") + request(start=b"HEAD /x HTTP/1.1") + SECRET)
    got, head = peer.answer(), peer.answer("HEAD")
    for answer in (got, head):
        del answer.headers["x-request-id"], answer.headers["date"]
    assert (head.status, head.headers) == (got.status, got.headers)
    assert peer.answer().body == b"/smuggled"


@pytest.mark.parametrize("status", [204, 304])
def test_what_may_have_no_body_has_none(peer: Peer, status: int) -> None:
    peer.send(request(start=b"GET /status/%d HTTP/1.1" % status) + SECRET)
    answer = peer.answer()
    assert answer.status == status
    assert not {"transfer-encoding", "content-length"} & set(answer.headers)
    assert peer.answer().body == b"/smuggled"


@pytest.mark.parametrize("status", [200, 201, 205, 299, 404, 418, 500, 599, 999])
def test_any_other_status_carries_its_body(peer: Peer, status: int) -> None:
    peer.send(request(start=b"GET /status/%d HTTP/1.1" % status) + SECRET)
    assert peer.answer()[::2] == (status, b"twelve bytes")
    assert peer.answer().body == b"/smuggled"


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PATCH", "PUT", "PROPFIND", "PURGE", "M-SEARCH"])
def test_any_method_reaches_the_application(target: Target, peer: Peer, method: str) -> None:
    peer.send(request(start=f"{method} /x HTTP/1.1".encode()))
    assert peer.answer().body == b"/x"
    assert target.look().whole == [Seen(method, "/x")]


def test_a_stream_for_an_old_client_ends_with_the_connection(peer: Peer) -> None:
    peer.send(b"GET /big?mib=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + SECRET)
    answer = peer.answer()
    assert answer.headers["connection"] == "close"
    assert (len(answer.body), "transfer-encoding" in answer.headers) == (1 << 20, False)


def test_an_unknown_protocol_is_answered_in_this_one(target: Target, peer: Peer) -> None:
    peer.send(
        request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: ", start=b"GET /x HTTP/1.1")
    )
    assert peer.answer().body == b"/x"
    assert target.look().whole == [GET]


@pytest.mark.parametrize(
    "frames", [b"\xff" * 100, SECRET, bytes(8) + b"\x01" + bytes(100)], ids=["ff", "text", "zeros"]
)
def test_nonsense_in_http2_ends_the_connection(target: Target, peer: Peer, frames: bytes) -> None:
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
    peer.finish()
    peer.rest()
    assert target.look().whole == []


# Clients that leave


ABORTED = [
    request(start=b"GET /x HTTP/1.1"),
    request(LENGTH, body=b"abc"),
    request(CHUNKED, body=b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"),
    request(CONTINUE, LENGTH, body=b"abc"),
]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("data", ABORTED, ids=["get", "length", "chunks", "expectation"])
def test_a_client_may_leave_at_every_byte(target: Target, data: bytes, reset: bool) -> None:
    target.look()
    descriptors = target.descriptors()
    for size in range(len(data)):
        with target.peer() as peer:
            peer.send(data[:size])
            if reset:
                peer.reset()
    target.wait_until_quiet(descriptors)
    record = target.look()
    assert record.whole == []
    target.check_unharmed()


@pytest.mark.parametrize("data", ABORTED, ids=["get", "length", "chunks", "expectation"])
def test_a_request_without_its_end_is_not_served(target: Target, peer: Peer, data: bytes) -> None:
    """The client has said all that it will say, and reads what comes."""
    for size in range(1, len(data)):
        with target.peer() as each:
            each.send(data[:size])
            each.finish()
            rest = each.rest().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 "), data[:size]
    assert target.look().whole == []


# Clients that are slow


@pytest.mark.parametrize("data", ABORTED[:3], ids=["get", "length", "chunks"])
def test_a_byte_at_a_time_is_a_request(target: Target, peer: Peer, data: bytes) -> None:
    peer.send(*(data[each : each + 1] for each in range(len(data))))
    assert peer.answer().body == b"/x"


MIB = 1 << 20


def received_size(peer: Peer) -> int:
    """Read until the last chunk; return how many bytes came."""
    size, end = 0, b""
    while not end.endswith(b"\r\n0\r\n\r\n"):
        data = peer.socket.recv(1 << 20)
        assert data, f"the connection ended after {size} bytes"
        size += len(data)
        end = (end + data)[-7:]
    return size


def test_who_does_not_read_fills_no_memory_and_disturbs_nobody(target: Target) -> None:
    """Four clients ask for 256 MiB each and read nothing."""
    descriptors, memory = target.descriptors(), target.memory_bytes()
    peers = [target.peer(receive_buffer_bytes=1 << 16) for _ in range(4)]
    for each in peers:
        each.send(request(start=b"GET /big?mib=256 HTTP/1.1"))
    wait_until_sync(lambda: target.look().running == 4, within_s=10, what="four handlers")
    for _ in range(50):
        target.check_unharmed()
    assert target.look().running == 4
    assert target.memory_bytes() - memory < 40 * MIB
    [one, *others] = peers
    for each in others:
        each.reset()
    assert received_size(one) > 256 * MIB  # Whoever reads after all gets all.
    one.socket.close()
    target.wait_until_quiet(descriptors)


def test_who_asks_and_does_not_read_is_not_heard_without_limit(target: Target) -> None:
    """A client pipelines big answers as fast as it can and reads none of them."""
    memory = target.memory_bytes()
    with target.peer(receive_buffer_bytes=1 << 16) as peer:
        peer.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.socket.sendall(request(start=b"GET /big?mib=1 HTTP/1.1") * 1_000_000)
        assert target.memory_bytes() - memory < 40 * MIB
    target.check_unharmed()


def test_idle_clients_disturb_nobody(target: Target) -> None:
    descriptors = target.descriptors()
    idle = [target.peer() for _ in range(2000)]
    for each in idle[::2]:
        each.send(b"GET / HTTP/1.1\r\nHost")
    wait_until_sync(lambda: target.descriptors() > 2000, within_s=10, what="2,000 connections")
    target.check_unharmed()
    for each in idle:
        each.socket.close()
    target.wait_until_quiet(descriptors)
