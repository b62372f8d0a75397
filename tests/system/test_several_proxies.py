"""Several proxies on one port; proxies that are killed, or told to end, while clients keep asking."""

import asyncio
import signal
import socket
from collections import Counter
from urllib.parse import urlsplit

import psutil
import pytest

from tests.system.load import Load
from tests.system.serving import Place, Run, get
from tests.waiting import wait_until_sync

APP = """
    import asyncio, pathlib
    import salver as serve
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    @serve.deployment(max_ongoing_requests=100)
    class App:
        async def __call__(self, request: Request):
            if request.url.path == "/stream":
                async def parts():
                    yield "begun "
                    while not pathlib.Path("go").exists():
                        await asyncio.sleep(0.01)
                    yield "finished"
                return StreamingResponse(parts())
            return "answer"

    app = App.bind()
"""

CLIENTS = 16


def proxies(run: Run) -> list[psutil.Process]:
    return sorted(run.named("proxy"), key=lambda each: each.pid)


def served(process: psutil.Process) -> int:
    """Return how many clients a proxy has."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


def test_connections_are_dealt_out_among_the_proxies(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", "num_proxies=2") as run:
        url = run.url()
        first, second = proxies(run)
        address = (urlsplit(url).hostname, urlsplit(url).port)
        clients = [socket.create_connection(address) for _ in range(100)]
        wait_until_sync(lambda: served(first) + served(second) == 100, within_s=10, what="all connections")
        assert min(served(first), served(second)) > 20
        for each in clients:
            each.sendall(b"GET /-/healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert each.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            each.close()


def test_a_port_that_others_use_is_not_shared_with_them(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", "num_proxies=2") as run:
        port = urlsplit(run.url()).port or 0
        for more in ((), ("--http", "num_proxies=2")):
            with place.run("app:app", *more, port=port) as other:
                assert other.exit_code() == 1
                assert f"Port {port} on 127.0.0.1 is in use by" in other.output


@pytest.mark.parametrize("num_proxies", [1, 2])
def test_a_killed_proxy_loses_only_what_it_had(place: Place, num_proxies: int) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", f"num_proxies={num_proxies}") as run:
        with Load(run.url(), CLIENTS) as load:
            load.go_on()
            victim = proxies(run)[0]
            others = Counter(each.pid for each in proxies(run)[1:])
            victim.kill()
            load.go_on()
            wait_until_sync(
                lambda: len(proxies(run)) == num_proxies and victim not in proxies(run),
                within_s=10,
                what="another proxy",
            )
            load.go_on()
        assert len(load.lost) <= CLIENTS
        assert set(load.answers) == {b"answer"}
        assert others <= Counter(each.pid for each in proxies(run))


@pytest.mark.parametrize("num_proxies", [1, 2])
def test_a_proxy_that_is_told_to_end_loses_nothing(place: Place, num_proxies: int) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", f"num_proxies={num_proxies}") as run:
        with Load(run.url(), CLIENTS) as load:
            for _ in range(3):
                load.go_on()
                leaving = proxies(run)[0]
                leaving.send_signal(signal.SIGTERM)
                leaving.wait(10)
            load.go_on()
        assert load.lost == []
        assert set(load.answers) == {b"answer"}


def test_a_proxy_that_is_told_to_end_finishes_what_it_has_while_its_successor_serves(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        url = run.url()
        [leaving] = proxies(run)

        async def stream() -> None:
            parts = urlsplit(url)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
            await reader.readuntil(b"begun ")
            leaving.send_signal(signal.SIGTERM)
            answer = await asyncio.to_thread(get, url)
            assert answer.text == "answer"
            assert leaving.is_running()
            (place.path / "go").touch()
            assert b"finished" in await reader.read()
            writer.close()

        asyncio.run(stream())
        leaving.wait(10)
        assert len(proxies(run)) == 1


def test_a_proxy_that_is_told_twice_ends_at_once(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        parts = urlsplit(run.url())
        [leaving] = proxies(run)
        with socket.create_connection((parts.hostname, parts.port)) as sock:
            sock.sendall(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
            assert sock.recv(1000)
            leaving.send_signal(signal.SIGTERM)
            run.wait_for("was told to end, and is replaced")
            leaving.send_signal(signal.SIGTERM)
            leaving.wait(10)
