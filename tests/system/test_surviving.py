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
from salver.api.client import DeployFailed
from salver.api.driver import find_driver
from salver.exceptions import DeploymentUnavailableError, ReplicaDiedError, SalverError
from tests.system import surviving
from tests.system.serving import get, new_place
from tests.waiting import wait_until, wait_until_sync


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


async def test_requests_go_on_without_a_controller_and_everybody_finds_the_next_one() -> None:
    front = serve.run(surviving.Front.bind(surviving.Model.bind(1)), name="model", route_prefix="/model")
    model = serve.get_deployment_handle("Model", "model")
    driver = find_driver()
    assert driver is not None
    url = f"{driver.instance.http_url}/model"
    assert (get(url).text, await front.get.remote(), await model.get.remote()) == ("version 1", 1, 1)
    controller = _controller()
    with Traffic(lambda: get(url).text) as over_http, Traffic(lambda: model.get.remote().result(timeout_s=30)) as calls:
        over_http.until_more()
        controller.kill()
        await wait_until(lambda: not controller.is_running(), within_s=10, what="its end")
        over_http.until_more(50)
        calls.until_more(50)
        assert await front.get.remote() == 1
    assert (over_http.failures, calls.failures) == ([], [])
    serve.run(surviving.Front.bind(surviving.Model.bind(2)), name="model", route_prefix="/model")
    assert (get(url).text, await front.get.remote(), await model.get.remote()) == ("version 2", 2, 2)
    serve.delete("model")
    for handle in (model, front):
        with pytest.raises(DeploymentUnavailableError):
            await handle.get.remote()


def test_a_deployment_that_is_under_way_when_the_controller_dies_is_no_hang() -> None:
    failure: list[BaseException] = []

    def deploy() -> None:
        try:
            serve.run(surviving.Stuck.bind(), name="stuck", route_prefix=None)
        except SalverError as error:
            failure.append(error)

    controller = _controller()
    thread = threading.Thread(target=deploy)
    thread.start()
    wait_until_sync(lambda: serve.status().applications, within_s=10, what="the application")
    controller.kill()
    wait_until_sync(lambda: not controller.is_running(), within_s=10, what="its end")
    assert list(serve.status().applications) == ["stuck"]
    serve.delete("stuck")
    thread.join(30)
    assert not thread.is_alive()
    assert [type(each) for each in failure] == [DeployFailed]
