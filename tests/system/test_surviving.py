"""Handles outlive what they call: updates, scaling, killed replicas, and a controller that dies and comes back."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import salver as serve
from salver.exceptions import ReplicaDiedError
from tests.system import surviving
from tests.system.serving import new_place
from tests.waiting import wait_until_sync


@pytest.fixture(autouse=True)
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An instance of this test process, whose controller may be killed."""
    with new_place(tmp_path) as place:
        monkeypatch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


class Traffic:
    """Calls again and again from a thread, and writes down what fails."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.answers: list[Any] = []
        self.failures: list[BaseException] = []
        self._call = call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def until_more(self, count: int = 20) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + count
        wait_until_sync(lambda: len(self.answers) >= wanted, within_s=30, what="answers")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self._call())
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.failures.append(error)


def test_a_handle_survives_updates_and_scaling_without_a_failed_call() -> None:
    handle = serve.run(surviving.Model.bind(0), name="model", route_prefix=None)
    with Traffic(lambda: handle.get.remote().result(timeout_s=30)) as traffic:
        traffic.until_more()
        for version, num_replicas in enumerate((1, 3, 2, 1), 1):
            serve.run(surviving.Model.options(num_replicas=num_replicas).bind(version), name="model", route_prefix=None)
            traffic.until_more()
    assert traffic.failures == []
    assert sorted(set(traffic.answers)) == [0, 1, 2, 3, 4]
    assert handle.broadcast("get").results(timeout_s=30) == [4]


def test_a_handle_survives_killed_replicas_and_only_running_calls_fail() -> None:
    handle = serve.run(surviving.Model.options(num_replicas=2).bind(1), name="model", route_prefix=None)
    with Traffic(lambda: handle.get.remote().result(timeout_s=30)) as traffic:
        for _ in range(3):
            traffic.until_more()
            pids = handle.broadcast("pid").results(timeout_s=30, return_exceptions=True)
            os.kill(next(each for each in pids if isinstance(each, int)), signal.SIGKILL)
    assert len(traffic.failures) <= 3
    assert all(isinstance(each, ReplicaDiedError) for each in traffic.failures)

    def answers() -> list[Any]:
        return handle.broadcast("get").results(timeout_s=30, return_exceptions=True)

    wait_until_sync(lambda: answers() == [1, 1], within_s=30, what="two replicas")


def _controller() -> psutil.Process:
    """Return the controller of this process's instance."""
    (found,) = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("controller")]
    return found


def _kill_controller() -> None:
    """Kill the controller, and wait for its successor."""
    old = _controller()
    old.kill()

    def successor() -> bool:
        found = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("controller")]
        return bool(found) and old.pid not in {each.pid for each in found}

    wait_until_sync(successor, within_s=20, what="another controller")


def test_a_handle_survives_the_controller_and_hears_its_successor() -> None:
    front = serve.run(surviving.Front.bind(surviving.Model.bind(1)), name="model", route_prefix="/model")
    model = serve.get_deployment_handle("Model", "model")
    with (
        Traffic(lambda: front.get.remote().result(timeout_s=30)) as through_a_replica,
        Traffic(lambda: model.get.remote().result(timeout_s=30)) as direct,
    ):
        direct.until_more()
        _kill_controller()
        direct.until_more()
        through_a_replica.until_more()
        serve.run(surviving.Front.bind(surviving.Model.bind(2)), name="model", route_prefix="/model")
        direct.until_more()
        through_a_replica.until_more()
    assert (direct.failures, through_a_replica.failures) == ([], [])
    assert (direct.answers[-1], through_a_replica.answers[-1]) == (2, 2)
    assert model.broadcast("get").results(timeout_s=30) == [2]


def test_a_deployment_that_is_under_way_when_the_controller_dies_is_finished(tmp_path: Path) -> None:
    file = tmp_path / "go"
    done: list[Any] = []

    def deploy() -> None:
        handle = serve.run(surviving.Slow.bind(str(file)), name="slow", route_prefix=None)
        done.append(handle.get.remote().result(timeout_s=30))

    thread = threading.Thread(target=deploy)
    thread.start()
    wait_until_sync(lambda: serve.status().applications, within_s=10, what="the application")
    _kill_controller()
    file.touch()
    thread.join(30)
    assert done == ["slow"]
