"""More connections than there is work for, or room."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest

from tests.system.serving import Place, Run, get
from tests.waiting import wait_until_sync

APP = """
    import asyncio, pathlib
    import salver as serve
    from starlette.requests import Request

    @serve.deployment(max_ongoing_requests=100)
    class App:
        async def __call__(self, request: Request):
            while request.url.path == "/slow" and not pathlib.Path("go").exists():
                await asyncio.sleep(0.01)
            return "answer"

    app = App.bind()
"""

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as each:
        yield each


def connect(run: Run, stack: ExitStack, asking: bytes = b"") -> socket.socket:
    parts = urlsplit(run.url())
    sock = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=20))
    sock.sendall(asking)
    return sock


def the_proxy(run: Run) -> psutil.Process:
    run.url()
    [proxy] = run.named("proxy")
    return proxy


def clients_of(proxy: psutil.Process) -> list[str]:
    """Return the states of a proxy's connections to clients, those that end included."""
    return [each.status for each in proxy.net_connections("tcp") if each.status != psutil.CONN_LISTEN]


def served(proxy: psutil.Process) -> int:
    """Return how many clients a proxy has."""
    return clients_of(proxy).count(psutil.CONN_ESTABLISHED)


def test_where_all_are_busy_a_newcomer_is_turned_away(place: Place, stack: ExitStack) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", "max_connections=4") as run:
        assert get(run.url()).text == "answer"
        busy = [connect(run, stack, SLOW) for _ in range(4)]
        wait_until_sync(lambda: served(the_proxy(run)) == 4, within_s=10, what="the connections")
        with connect(run, stack) as newcomer:
            answer = newcomer.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"\r\nconnection: close\r\n" in answer
            assert newcomer.recv(1000) == b""
        (place.path / "go").touch()
        for each in busy:
            assert each.recv(1000).endswith(b"answer")
        busy.pop().close()
        wait_until_sync(lambda: served(the_proxy(run)) == 3, within_s=10, what="the end of one")
        assert get(run.url()).text == "answer"


def test_a_newcomer_takes_the_place_of_the_one_that_was_silent_for_longest(place: Place, stack: ExitStack) -> None:
    place.write("app.py", APP)
    with place.run("app:app", "--http", "max_connections=3") as run:
        silent, *others = (connect(run, stack, GET) for _ in range(3))
        assert silent.recv(1000).endswith(b"answer")
        for each in others:
            assert each.recv(1000).endswith(b"answer")
            for _ in range(100):
                # So that the first one is silent for longer by what a clock can tell.
                each.sendall(GET)
                assert each.recv(1000).endswith(b"answer")

        def comes_in() -> bool:
            with connect(run, stack, GET) as another:
                return another.recv(1000).endswith(b"answer")

        # Silent are those that a sweep found so.
        wait_until_sync(comes_in, within_s=5, what="a place")
        assert silent.recv(1000) == b""
        for each in others:
            each.sendall(GET)
            assert each.recv(1000).endswith(b"answer")


def test_two_thousand_silent_clients_hinder_nobody_and_leave_nothing(place: Place, stack: ExitStack) -> None:
    clients = 2000
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < clients + 500:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, clients + 500), most))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (now, most))
    place.write("app.py", APP)
    with place.run("app:app") as run:
        assert get(run.url()).text == "answer"
        proxy = the_proxy(run)
        # The connection of that request, which is closed by now, would be taken for one of the crowd's.
        wait_until_sync(lambda: not clients_of(proxy), within_s=10, what="the end of the first connection")
        files, memory = proxy.num_fds(), proxy.memory_full_info().uss
        with ExitStack() as crowd:
            silent = [connect(run, crowd) for _ in range(clients)]
            wait_until_sync(lambda: proxy.num_fds() >= files + clients, within_s=20, what="all connections")
            assert get(run.url()).text == "answer"
            assert (proxy.memory_full_info().uss - memory) / clients < 16_000
            silent[0].sendall(GET)
            assert silent[0].recv(1000).endswith(b"answer")
        wait_until_sync(lambda: proxy.num_fds() <= files, within_s=10, what="an end of all connections")


def test_without_files_left_a_proxy_neither_spins_nor_dies(place: Place, stack: ExitStack) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        assert get(run.url()).text == "answer"
        proxy = the_proxy(run)
        if not hasattr(resource, "prlimit"):
            pytest.skip("only Linux sets the limits of another process")
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (proxy.num_fds() + 8,) * 2)
        with ExitStack() as crowd:
            clients = [connect(run, crowd) for _ in range(40)]
            # Those for whom no file is left are closed at once.
            assert clients[-1].recv(1000) == b""
            before = proxy.cpu_times().user + proxy.cpu_times().system
            clients[0].sendall(GET)
            assert clients[0].recv(1000).endswith(b"answer")
            assert proxy.cpu_times().user + proxy.cpu_times().system - before < 1
        wait_until_sync(lambda: _is_served(run, stack), within_s=10, what="an answer")
        assert the_proxy(run).pid == proxy.pid


def _is_served(run: Run, stack: ExitStack) -> bool:
    try:
        return connect(run, stack, GET).recv(1000).endswith(b"answer")
    except OSError:
        return False
