"""Batches in real replicas, over HTTP and handles."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import salver as serve
from salver.api.driver import find_driver
from salver.exceptions import SalverError
from tests.system import batch_deployments as deployments
from tests.system.serving import Place, get, new_place
from tests.waiting import wait_until_sync


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    path: Path = tmp_path_factory.mktemp("batching")
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


def _url() -> str:
    driver = find_driver()
    assert driver is not None
    assert driver.instance.http_url is not None
    return driver.instance.http_url


def _get_all(urls: list[str]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(urls)) as threads:
        return list(threads.map(get, urls))


def test_calls_of_a_handle_share_a_batch() -> None:
    handle = serve.run(deployments.Doubler.bind(), name="handles", route_prefix=None)
    calls = [handle.double.remote(number) for number in range(4)]
    assert [call.result(timeout_s=20) for call in calls] == [(0, 4), (2, 4), (4, 4), (6, 4)]


def test_http_requests_share_a_batch() -> None:
    serve.run(deployments.Doubler.bind(), name="http", route_prefix="/http")
    answers = _get_all([f"{_url()}/http?n={number}" for number in range(4)])
    assert [answer.json() for answer in answers] == [[0, 4], [2, 4], [4, 4], [6, 4]]


def test_an_exception_reaches_all_callers_of_the_batch_and_the_next_batch_is_fine() -> None:
    handle = serve.run(deployments.Doubler.bind(), name="raises", route_prefix=None)
    for call in [handle.double.remote(number) for number in (13, 1, 2, 3)]:
        with pytest.raises(ValueError, match="thirteen"):
            call.result(timeout_s=20)
    assert [call.result(timeout_s=20)[0] for call in [handle.double.remote(4) for _ in range(4)]] == [8] * 4


def test_reconfigure_sets_size_and_wait_without_a_restart() -> None:
    deployment = deployments.Doubler.options(user_config={"max_batch_size": 2, "wait_s": 5.0})
    handle = serve.run(deployment.bind(), name="reconfigured", route_prefix=None)
    assert {call.result(timeout_s=20)[1] for call in [handle.double.remote(number) for number in range(4)]} == {2}
    changed = deployment.options(user_config={"max_batch_size": 3, "wait_s": 0.01})
    handle = serve.run(changed.bind(), name="reconfigured", route_prefix=None)
    assert {call.result(timeout_s=20)[1] for call in [handle.double.remote(number) for number in range(3)]} == {3}
    assert handle.double.remote(1).result(timeout_s=20) == (2, 1)
    assert handle.called.remote().result(timeout_s=20) >= 2


def test_a_cancelled_call_leaves_its_batch_before_it_runs() -> None:
    handle = serve.run(deployments.Doubler.bind(), name="cancels", route_prefix=None)
    lost = handle.double.remote(13)
    wait_until_sync(lambda: handle.waiting.remote().result() == 1, within_s=10, what="the call to wait")
    lost.cancel()
    wait_until_sync(lambda: handle.waiting.remote().result() == 0, within_s=10, what="the call to leave")
    calls = [handle.double.remote(number) for number in range(4)]
    assert [call.result(timeout_s=20)[1] for call in calls] == [4, 4, 4, 4]
    assert handle.called.remote().result(timeout_s=20) == 1


def test_models_do_not_mix_and_batches_know_their_requests() -> None:
    handle = serve.run(deployments.Doubler.bind(), name="models", route_prefix=None)
    calls = [handle.model.options(multiplexed_model_id="ab"[number % 2]).remote(number) for number in range(4)]
    answers = [call.result(timeout_s=20) for call in calls]
    assert [model for model, _ in answers] == ["a", "b", "a", "b"]
    assert answers[0] == answers[2]
    assert len({request_id for _, ids in answers for request_id in ids}) == 4


def test_a_handler_that_hangs_can_be_found() -> None:
    handle = serve.run(deployments.Doubler.bind(), name="hangs", route_prefix=None)
    call = handle.hold.remote(1)
    stack = wait_until_sync(lambda: handle.stack.remote().result(), within_s=10, what="the handler to run")
    assert "await self.gate.wait()" in stack
    handle.release.remote().result(timeout_s=10)
    assert call.result(timeout_s=10) == 1


def test_streams_of_a_batch_end_each_at_its_time() -> None:
    handle = serve.run(deployments.Speller.bind(), name="streams", route_prefix="/streams")
    words = ["a", "longer", "word"]
    answers = _get_all([f"{_url()}/streams?word={word}" for word in words])
    assert [answer.text.replace(" ", "") for answer in answers] == words
    assert handle.batch_sizes.remote().result(timeout_s=10) == [3]


def test_a_function_deployment_is_batched_and_warned_of_batches_that_are_never_full(place: Place) -> None:
    place.write("application.py", "from tests.system.batch_deployments import lengths\napp = lengths.bind()\n")
    with place.run("application:app", env={"PYTHONPATH": _paths()}) as run:
        url = run.url()
        assert {int(answer.text) for answer in _get_all([url] * 9)} <= {1, 2, 3}
        run.wait_for("batches will never be full")


def test_a_size_that_is_set_wrongly_fails_the_deployment_with_the_reason() -> None:
    deployment = deployments.Doubler.options(user_config={"max_batch_size": 0, "wait_s": 5.0})
    with pytest.raises((RuntimeError, SalverError), match="max_batch_size must be an integer >= 1, got 0"):
        serve.run(deployment.options(max_constructor_retry_count=1).bind(), name="wrong", route_prefix=None)


def _paths() -> str:
    return os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
