"""Plain Python processes that connect to a running instance: scripts, notebooks, jobs."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import salver as serve
from salver.exceptions import RequestCancelledError, SalverError
from tests.system.serving import Place, Run, get
from tests.waiting import wait_until_sync

APP = """
    import asyncio, os
    import salver as serve

    @serve.deployment(max_ongoing_requests=20)
    class Model:
        def __init__(self):
            self.running = 0
        async def __call__(self, value="hello"):
            return str(value) if isinstance(value, (int, str)) else "hello"
        async def pid(self):
            return os.getpid()
        async def hang(self):
            self.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.running -= 1
        async def num_running(self):
            return self.running

    app = Model.bind()
"""


@pytest.fixture
def served(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """An application that another process serves."""
    place.write("served.py", APP)
    monkeypatch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
    with place.run("served:app") as run:
        run.url()
        yield run
        serve.shutdown()


def instances(place: Place) -> list[Path]:
    return [each for each in place.runtime_dir.iterdir() if each.name.startswith("i-")]


def test_a_client_calls_what_the_only_instance_serves(served: Run) -> None:
    with serve.connect() as connection:
        assert connection.http_url == served.url().rstrip("/")
        assert serve.status().applications["default"].status.value == "RUNNING"
        handle = serve.get_app_handle("default")
        assert handle.remote(1).result(timeout_s=10) == "1"

        async def call() -> list[Any]:
            return await asyncio.gather(*(handle.remote(number) for number in range(20)))

        assert asyncio.run(call()) == [str(number) for number in range(20)]
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda: results.append(handle.remote("t").result(timeout_s=10))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == ["t"] * 5
        assert serve.get_deployment_handle("Model", "default").pid.remote().result(timeout_s=10) != os.getpid()
    assert not connection.is_open
    with pytest.raises(SalverError):
        handle.remote(1)
    assert get(served.url()).text == "hello"


def test_what_a_client_runs_stays_and_what_it_deletes_goes(served: Run, place: Place) -> None:
    place.write(
        "client.py",
        """
        import salver as serve
        from served import Model

        @serve.deployment
        class Local:
            async def __call__(self, request):
                return "from a script"

        serve.connect()
        serve.run(Local.bind(), name="local", route_prefix="/local")
        serve.run(Model.bind(), name="short", route_prefix=None)
        serve.delete("short")
        print("applications:", sorted(serve.status().applications))
        """,
    )
    with place.start("client.py") as client:
        assert client.exit_code() == 0, client.output
        client.wait_for("applications: ['default', 'local']")
    assert get(served.url() + "/local").text == "from a script"
    served.signal(signal.SIGINT)
    assert served.exit_code() == 0
    assert place.leftovers() == []


def test_one_of_several_instances_is_chosen_by_directory_socket_or_process(served: Run, place: Place) -> None:
    with place.run("served:app") as other:
        other.url()
        with pytest.raises(SalverError, match=r"2 instances run here\. Pass the directory or the process") as caught:
            serve.connect()
        for path in instances(place):
            assert str(path) in str(caught.value)
        assert f"process {served.process.pid}" in str(caught.value)
        for pid in (served.process.pid, str(other.process.pid), other.agents()[0].pid):
            with serve.connect(pid) as connection:
                assert connection.http_url == (served if pid == served.process.pid else other).url()
        path = Path(connection.address)
        for address in (path, str(path), path.name, path / "controller.sock", f"unix:{path}/agent.sock"):
            with serve.connect(address) as connection:
                assert connection.address == str(path)
        with pytest.raises(SalverError, match="Process 1 has no instance"):
            serve.connect(1)
        with serve.connect(path), pytest.raises(SalverError, match="part of an instance already"):
            serve.connect(path)


def test_a_client_that_is_killed_leaves_the_instance_untouched(served: Run, place: Place) -> None:
    place.write(
        "client.py",
        """
        import salver as serve
        serve.connect()
        handle = serve.get_app_handle("default")
        responses = [handle.hang.remote() for _ in range(3)]
        print("calls", flush=True)
        responses[0].result()
        """,
    )
    with serve.connect():
        handle = serve.get_app_handle("default")
        with place.start("client.py") as client:
            client.wait_for("calls")
            wait_until_sync(lambda: _running(handle) == 3, within_s=10, what="the client's calls")
            client.signal(signal.SIGKILL)
            wait_until_sync(lambda: _running(handle) == 0, within_s=10, what="an end of its calls")
        assert get(served.url()).text == "hello"


def _running(handle: serve.DeploymentHandle[Any]) -> Any:
    return handle.num_running.remote().result(timeout_s=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_the_instance_fails_a_clients_calls_clearly(served: Run, number: int) -> None:
    connection = serve.connect()
    handle = serve.get_app_handle("default")
    running = [handle.hang.remote() for _ in range(30)]
    served.signal(signal.SIGKILL if number == signal.SIGKILL else signal.SIGINT)
    if number == signal.SIGINT:
        served.wait_for("Stopping")
        served.signal(signal.SIGINT)
    for each in running:
        with pytest.raises(SalverError) as caught:
            each.result(timeout_s=30)
        assert not isinstance(caught.value, RequestCancelledError)
    wait_until_sync(lambda: not connection.is_open, within_s=10, what="the news")
    with pytest.raises(SalverError, match="has ended, or was left"):
        handle.remote(1)
    with pytest.raises(SalverError, match="was connected to has ended"):
        serve.start()
    connection.close()


def test_no_instance_says_where_it_looked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
    with pytest.raises(SalverError, match=f"No instance runs in {place.runtime_dir}: start one with `salver run`"):
        serve.connect()
    with pytest.raises(SalverError, match="No instance runs at /nowhere"):
        serve.connect("/nowhere")
