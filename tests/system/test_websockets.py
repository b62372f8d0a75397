"""WebSockets through real processes, with a real client."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import salver as serve
from tests.system import sockets
from tests.system.serving import Place, new_place
from tests.unit.proxy.socket_clients import BAD, GOOD_CODES, SocketClient, close_frame, frame
from tests.waiting import wait_until

WITHIN_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    path: Path = tmp_path_factory.mktemp("websockets")
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        serve.run(sockets.Hub.bind(), name="hub", route_prefix="/hub")
        yield
        serve.shutdown()
        assert place.leftovers() == []


def url() -> str:
    from salver.api.driver import find_driver

    driver = find_driver()
    assert driver is not None
    assert driver.instance.http_url is not None
    return driver.instance.http_url


def ws(path: str, **options: Any) -> connect:
    """Return a connection that is to be opened."""
    return connect(
        url().replace("http", "ws", 1) + path, **{"max_size": None, "proxy": None, "close_timeout": 1, **options}
    )


async def state(prefix: str = "/hub") -> dict[str, Any]:
    """Return what the application knows."""
    async with httpx.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(f"{url()}{prefix}/state", timeout=WITHIN_S)).json()
        return found


async def nobody_runs() -> bool:
    """Say whether no handler of a socket runs."""
    return not (await state())["running"]


async def closed(client: ClientConnection) -> tuple[int, str]:
    """Return how a server closed."""
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(_read_all(client), WITHIN_S)
    received = caught.value.rcvd
    return (1006, "") if received is None else (int(received.code), received.reason)


async def _read_all(client: ClientConnection) -> None:
    while True:
        await client.recv()


async def refused(path: str, **options: Any) -> tuple[int, str]:
    """Return status and body of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await ws(path, **options)
    response = caught.value.response
    assert response.headers["x-request-id"]
    return response.status_code, bytes(response.body or b"").decode()


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_text_and_bytes_of_any_size_come_back(compression: str | None) -> None:
    async with ws("/hub/echo", compression=compression) as client:
        header = client.response.headers.get("sec-websocket-extensions", "") if client.response else ""
        assert ("permessage-deflate" in header) is (compression is not None)
        for message in ("", "héllo €", b"", b"\x00\xff", "x" * 70_000, os.urandom(3 << 20), "é" * (2 << 20)):
            await client.send(message)
            assert await client.recv() == message


async def test_a_message_in_fragments_arrives_whole() -> None:
    async with ws("/hub/echo") as client:
        await client.send(["a", "é" * 1000, "", "z"])
        assert await client.recv() == "a" + "é" * 1000 + "z"


async def test_an_application_sees_the_handshake_and_chooses() -> None:
    async with ws(
        "/hub/talk/ada?a=1", subprotocols=["one", "two"], additional_headers={"X-Request-ID": "mine"}
    ) as client:
        assert client.subprotocol == "two"
        assert client.response is not None
        assert client.response.headers["x-name"] == "ada"
        assert client.response.headers["x-request-id"] == "mine"
        told = json.loads(await client.recv())
    assert told == {
        "url": url().replace("http", "ws", 1) + "/hub/talk/ada?a=1",
        "query": {"a": "1"},
        "root_path": "/hub",
        "id": "mine",
        "version": 0,
    }


async def test_every_handshake_has_an_id() -> None:
    async with ws("/hub/talk/ada") as client:
        assert client.response is not None
        assert client.response.headers["x-request-id"]
        assert client.subprotocol is None


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/close/1000", 1000, "as you wish"),
        ("/close/3001", 3001, "as you wish"),
        ("/close/4999", 4999, "as you wish"),
        ("/return", 1000, ""),
    ],
)
async def test_an_applications_close_reaches_the_client(path: str, code: int, reason: str) -> None:
    async with ws("/hub" + path) as client:
        assert await closed(client) == (code, reason)


async def test_an_exception_closes_with_1011_and_names_the_request() -> None:
    async with ws("/hub/raise/after", additional_headers={"X-Request-ID": "mine"}) as client:
        assert await closed(client) == (1011, "request mine failed")
    async with ws("/hub/close/1005") as client:
        assert (await closed(client))[0] == 1011


async def test_a_clients_close_reaches_the_application() -> None:
    before = len((await state())["codes"])
    for code in (1000, 1001, 4321):
        client = await ws("/hub/echo")
        await client.close(code)
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of all handlers")
    assert (await state())["codes"][before:] == [1000, 1001, 4321]


async def test_pings_are_answered_by_the_proxy() -> None:
    async with ws("/hub/echo") as client:
        await asyncio.wait_for(await client.ping(b"hello"), WITHIN_S)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/hub/deny/close", 403, "Forbidden"),
        ("/hub/deny/raise", 418, '{"detail":"short and stout"}'),
        ("/hub/deny/respond", 401, "who are you?"),
        ("/hub/nowhere", 403, "Forbidden"),
        ("/nowhere", 404, "Path '/nowhere' not found. Ping http://.../-/routes for available routes."),
        ("/-/healthz", 200, "success"),
    ],
)
async def test_a_handshake_that_is_denied_is_answered_as_http(path: str, status: int, body: str) -> None:
    assert await refused(path) == (status, body)


async def test_an_exception_before_accepting_is_a_500_as_for_http() -> None:
    status, body = await refused("/hub/raise/before")
    assert (status, body.splitlines()[-1]) == (500, "ValueError: in the endpoint")


async def test_a_deployment_without_an_asgi_application_has_no_websockets() -> None:
    serve.run(sockets.plain.bind(), name="plain", route_prefix="/plain")
    status, body = await refused("/plain")
    assert (status, "@serve.ingress" in body) == (500, True)
    await asyncio.to_thread(serve.delete, "plain")


async def test_many_sockets_at_once_each_get_their_own_answers() -> None:
    async def talk(number: int) -> None:
        async with ws("/hub/echo") as client:
            for index in range(20):
                await client.send(f"{number} {index}")
                assert await client.recv() == f"{number} {index}"

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(talk(number))
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of all handlers")


async def test_a_client_that_does_not_read_stops_the_application_from_sending() -> None:
    start = (await state())["sent"]
    async with ws("/hub/flood", compression=None, max_queue=1) as client:
        seen = [-1]

        async def stands_still() -> bool:
            seen.append((await state())["sent"])
            return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] > start

        await wait_until(stands_still, within_s=WITHIN_S, what="an end of the flood")
        assert seen[-1] - start < 500
        for _ in range(seen[-1] - start + 50):
            assert len(await client.recv()) == 65_536
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of the handler, which only sends")


async def test_an_application_that_does_not_read_stops_the_client_from_sending() -> None:
    serve.run(sockets.Hub.bind(), name="busy", route_prefix="/busy")
    async with ws("/busy/busy", compression=None) as client:
        sent = [0]

        async def send() -> None:
            while sent[0] < 400:
                await client.send(bytes(65_536))
                sent[0] += 1

        sending = asyncio.create_task(send())
        seen: list[int] = []

        async def stands_still() -> bool:
            seen.append(sent[0])
            await asyncio.sleep(0.01)
            return len(seen) > 20 and len(set(seen[-20:])) == 1 and sent[0] > 10

        await wait_until(stands_still, within_s=WITHIN_S, what="an end of the sending")
        assert sent[0] < 300
        assert (await state("/busy"))["taken"] == 0
        async with httpx.AsyncClient() as http:
            await http.post(f"{url()}/busy/go-on")
        while await client.recv() != str(400 * 65_536):
            pass
        await sending
    await asyncio.to_thread(serve.delete, "busy")


async def test_a_client_that_is_killed_leaves_no_handler_behind() -> None:
    before = await state()
    client = await ws("/hub/echo")
    await client.send("x")
    await client.recv()
    client.transport.write(b"\x81\xfe\xff\xff half a message")
    client.transport.abort()
    flood = await ws("/hub/flood")
    await flood.recv()
    flood.transport.abort()
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of all handlers")
    after = await state()
    assert sorted(after["codes"][len(before["codes"]) :]) == [1006, 1006]
    assert after["cancelled"] == before["cancelled"]


async def test_a_client_that_leaves_before_it_is_accepted_cancels_the_handler() -> None:
    before = (await state())["cancelled"]
    opening = asyncio.create_task(_open("/hub/undecided"))

    async def runs() -> bool:
        return bool((await state())["running"])

    await wait_until(runs, within_s=WITHIN_S, what="the handler")
    opening.cancel()
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of the handler")
    assert (await state())["cancelled"] == before + 1


async def _open(path: str) -> ClientConnection:
    return await ws(path)


async def test_sockets_that_end_at_any_moment_leave_nothing_behind() -> None:
    random = Random(5)
    before = (await state())["running"]

    async def come_and_go() -> None:
        path = random.choice(["/echo", "/flood", "/undecided", "/return", "/raise/after", "/deny/close"])
        opening = asyncio.create_task(_open("/hub" + path))
        done, _ = await asyncio.wait([opening], timeout=random.choice([0.01, 0.1, 0.3]))
        if not done:
            opening.cancel()
        elif opening.exception() is None:
            client = opening.result()
            for _ in range(random.randrange(3)):
                with suppress(ConnectionClosed):
                    await client.send("x" * random.choice([1, 1000, 200_000]))
            client.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(150):
            group.create_task(come_and_go())
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of all handlers")
    assert before == 0
    async with ws("/hub/echo") as client:
        await client.send("still there")
        assert await client.recv() == "still there"


# Replicas that come and go


async def test_a_replica_that_is_killed_closes_its_sockets_and_the_next_one_serves() -> None:
    serve.run(sockets.Hub.bind(), name="mortal", route_prefix="/mortal")
    client = await ws("/mortal/echo", additional_headers={"X-Request-ID": "mine"})
    await client.send("x")
    await client.recv()
    undecided = asyncio.create_task(_open("/mortal/undecided"))
    pid = (await state("/mortal"))["pid"]
    os.kill(pid, signal.SIGKILL)
    assert await closed(client) == (1011, "request mine: its replica died")
    async with ws("/mortal/echo") as other:
        await other.send("y")
        assert await other.recv() == "y"

    async def runs_again() -> bool:
        found = await state("/mortal")
        return found["pid"] != pid and bool(found["running"])

    await wait_until(runs_again, within_s=WITHIN_S, what="the handshake that was not answered, on the next replica")
    undecided.cancel()
    await asyncio.to_thread(serve.delete, "mortal")


async def test_an_update_sends_clients_to_the_new_version() -> None:
    serve.run(sockets.Hub.bind(1), name="versions", route_prefix="/versions")
    client = await ws("/versions/echo")
    await client.send("x")
    await client.recv()
    updating = asyncio.create_task(
        asyncio.to_thread(serve.run, sockets.Hub.bind(2), name="versions", route_prefix="/versions")
    )
    assert await closed(client) == (1001, "")
    async with ws("/versions/talk/x") as other:
        assert '"version":2' in str(await other.recv())
    await updating


async def test_a_deletion_closes_with_1001() -> None:
    serve.run(sockets.Hub.bind(), name="gone", route_prefix="/gone")
    client = await ws("/gone/echo")
    await client.send("x")
    await client.recv()
    deleting = asyncio.create_task(asyncio.to_thread(serve.delete, "gone"))
    assert await closed(client) == (1001, "")
    await asyncio.wait_for(deleting, WITHIN_S)
    assert (await refused("/gone/echo"))[0] == 404


async def test_the_end_of_a_run_closes_with_1001(place: Place) -> None:
    with place.start(
        "-m", "salver", "run", "tests.system.sockets:app", "--port", "0", env={"PYTHONPATH": os.pathsep.join(sys.path)}
    ) as run:
        base = (await asyncio.to_thread(run.url)).replace("http", "ws", 1)
        async with connect(base + "/echo", proxy=None) as client:
            await client.send("x")
            await client.recv()
            run.signal(signal.SIGINT)
            assert await closed(client) == (1001, "")
            assert await asyncio.to_thread(run.exit_code) == 0


async def test_the_limit_of_time_counts_for_handshake_and_websocket_together(place: Place) -> None:
    place.write(
        "limited.py",
        """
        import signal
        import salver as serve
        from tests.system.sockets import app

        serve.start(http_options={"port": 0, "request_timeout_s": 1})
        serve.run(app)
        signal.pause()
        """,
    )
    with place.start("limited.py", env={"PYTHONPATH": os.pathsep.join(sys.path)}) as run:
        base = (await asyncio.to_thread(run.url)).replace("http", "ws", 1)
        async with connect(base + "/echo", proxy=None, additional_headers={"X-Request-ID": "mine"}) as client:
            assert await closed(client) == (1008, "Request mine timed out after 1.0s.")
        with pytest.raises(InvalidStatus) as caught:
            await connect(base + "/undecided", proxy=None)
        assert caught.value.response.status_code == 408
        async with httpx.AsyncClient() as http:
            found = (await http.get(base.replace("ws", "http", 1) + "/state", timeout=WITHIN_S)).json()
        assert (found["running"], found["cancelled"]) == (0, 2)


# Bytes on a socket


HANDSHAKE = (
    "GET /hub/echo HTTP/1.1\r\nHost: here\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    "Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Raw:
    """A client that sends bytes."""

    def __init__(self) -> None:
        parts = urlsplit(url())
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=WITHIN_S)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_some(self) -> bytes:
        """Return what comes next."""
        data = self._socket.recv(65_536)
        assert data, "the connection was closed"
        return data

    def read_until(self, end: bytes) -> bytes:
        """Return what comes, up to and with these bytes; what comes at once after them too."""
        data = b""
        while end not in data:
            data += self.read_some()
        return data

    def read_all(self) -> bytes:
        """Return what comes until the connection is closed."""
        data = b""
        while piece := self._socket.recv(65_536):
            data += piece
        return data

    def open(self, rest: bytes = b"") -> bytes:
        """Shake hands, and send more with it; return what came after the answer."""
        self.send(HANDSHAKE.format(version=13, key=KEY).encode() + rest)
        head, _, more = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        return more

    def ending(self, read: bytes = b"") -> SocketClient:
        """Return what a client makes of all that comes."""
        client = SocketClient()
        client.read(read + self.read_all())
        return client


@pytest.mark.parametrize(
    ("version", "key", "status"),
    [
        ("8", KEY, 426),
        ("13", "x", 400),
        ("13", "", 400),
        ("", KEY, 426),
        ("13", f"{KEY}\r\nSec-WebSocket-Key: {KEY}", 400),
    ],
)
def test_what_is_no_handshake_is_refused(version: str, key: str, status: int) -> None:
    with Raw() as raw:
        raw.send(HANDSHAKE.format(version=version, key=key).encode())
        assert raw.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("step", [1 << 20, 3])
@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD)
def test_what_a_client_must_not_send_closes_with_the_code_for_it(data: bytes, code: int, step: int) -> None:
    with Raw() as raw:
        read = raw.open()
        for at in range(0, len(data), step):
            raw.send(data[at : at + step])
        assert (raw.ending(read).closed_with or (None,))[0] == code


@pytest.mark.parametrize("code", GOOD_CODES)
def test_a_close_is_answered_with_its_code_and_the_connection_ends(code: int) -> None:
    with Raw() as raw:
        read = raw.open(close_frame(code, "bye €".encode()))
        assert raw.ending(read).closed_with == (code, "bye €")


GOOD = {
    "empty text": (frame(1), b"\x81\x00"),
    "empty bytes": (frame(2), b"\x82\x00"),
    "125 bytes": (frame(2, bytes(125)), b"\x82\x7d" + bytes(125)),
    "126 bytes": (frame(2, bytes(126)), b"\x82\x7e\x00\x7e" + bytes(126)),
    "65535 bytes": (frame(2, bytes(65_535)), b"\x82\x7e\xff\xff" + bytes(65_535)),
    "65536 bytes": (frame(2, bytes(65_536)), b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65_536)),
    "ping": (frame(9), b"\x8a\x00"),
    "ping of 125 bytes": (frame(9, bytes(125)), b"\x8a\x7d" + bytes(125)),
    "ten pings": (frame(9, b"x") * 10, b"\x8a\x01x" * 10),
    "pongs that nobody asked for": (frame(10, b"x") * 3 + frame(9), b"\x8a\x00"),
    "fragments with a ping": (
        frame(1, b"a", fin=False) + frame(9, b"p") + frame(0, b"b", fin=False) + frame(0, b"c"),
        b"\x8a\x01p\x81\x03abc",
    ),
    "empty fragments": (frame(1, fin=False) + frame(0, fin=False) + frame(0), b"\x81\x00"),
    "a character in two fragments": (
        frame(1, "€".encode()[:1], fin=False) + frame(0, "€".encode()[1:]),
        b"\x81\x03" + "€".encode(),
    ),
}


@pytest.mark.parametrize("with_handshake", [False, True])
@pytest.mark.parametrize(("data", "answer"), GOOD.values(), ids=GOOD)
def test_what_a_client_may_send_comes_back(data: bytes, answer: bytes, with_handshake: bool) -> None:
    with Raw() as raw:
        read = raw.open(data if with_handshake else b"")
        if not with_handshake:
            raw.send(data)
        while len(read) < len(answer):
            read += raw.read_some()
        assert read == answer


async def test_clients_that_leave_after_any_byte_leave_nothing_behind() -> None:
    data = HANDSHAKE.format(version=13, key=KEY).encode() + frame(1, b"hello") + frame(9) + close_frame(1000)
    for end in range(1, len(data)):
        with Raw() as raw:
            raw.send(data[:end])
    await wait_until(nobody_runs, within_s=WITHIN_S, what="an end of all handlers")
    with Raw() as raw:
        read = raw.open(data[data.index(b"\r\n\r\n") + 4 :])
        assert raw.ending(read).closed_with == (1000, "")


def test_a_socket_may_follow_requests_on_the_same_connection() -> None:
    with Raw() as raw:
        raw.send(b"GET /hub/state HTTP/1.1\r\nHost: here\r\n\r\n" + HANDSHAKE.format(version=13, key=KEY).encode())
        read = raw.read_until(b"101 Switching Protocols")
        assert read.startswith(b"HTTP/1.1 200 OK")
