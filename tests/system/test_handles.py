"""Handles between real processes: composition, limits, failures, updates."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import salver as serve
from salver.exceptions import DeploymentUnavailableError, RemoteError, ReplicaDiedError, SalverError
from tests.system import deployments
from tests.system.serving import new_place
from tests.waiting import wait_until_sync


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    path: Path = tmp_path_factory.mktemp("handles")
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


def test_methods_are_called_with_any_arguments() -> None:
    handle = serve.run(deployments.Calculator.bind(10), name="calculator", route_prefix=None)
    assert handle.add.remote(1, 2, extra=3).result() == 16
    assert handle.options(method_name="add").remote(1).result() == 11
    assert handle.remote("called").result() == "called"


def test_an_exception_keeps_its_type_and_brings_its_traceback() -> None:
    handle = serve.run(deployments.Calculator.bind(0), name="raises", route_prefix=None)
    with pytest.raises(deployments.CustomError) as caught:
        handle.fail.remote("why").result()
    assert isinstance(caught.value, RemoteError)
    assert caught.value.detail == "why"
    assert "in fail" in str(caught.value)


def test_an_unknown_method_lists_those_that_exist() -> None:
    handle = serve.run(deployments.Calculator.bind(0), name="unknown", route_prefix=None)
    with pytest.raises(SalverError, match=r"method 'nope' that does not exist. Available methods: \['__call__', 'add'"):
        handle.nope.remote().result()


def test_a_timeout_cancels_the_call() -> None:
    handle = serve.run(deployments.Sleeper.bind(), name="sleeper", route_prefix=None)
    with pytest.raises(TimeoutError):
        handle.sleep.remote().result(timeout_s=0.2)
    wait_until_sync(lambda: handle.cancelled_count.remote().result() == 1, within_s=10, what="the cancellation")


def test_deployments_compose_and_share_a_request_id() -> None:
    handle = serve.run(deployments.pipeline(), name="pipeline", route_prefix=None)
    answer = handle.remote("a b c").result()
    assert answer["words"] == 3
    assert answer["ids"][0] == answer["ids"][1]
    assert answer["chained"] == 3


def test_a_replica_never_runs_more_than_its_limit_whoever_calls() -> None:
    handle = serve.run(deployments.Limited.bind(), name="limited", route_prefix="/limited")
    callers = serve.run(
        deployments.Fan.options(num_replicas=3).bind(deployments.Limited.bind()), name="fan", route_prefix=None
    )
    responses = [callers.call_many.remote(30) for _ in range(6)]
    peaks = [peak for response in responses for peak in response.result(timeout_s=60)]
    assert len(peaks) == 180
    assert max(peaks) <= 2
    own = [handle.remote() for _ in range(50)]
    assert max(each.result(timeout_s=30) for each in own) <= 2


def test_a_full_queue_is_refused_and_idle_replicas_never_refuse_a_burst() -> None:
    handle = serve.run(deployments.Queue.bind(), name="queue", route_prefix="/queue")
    responses = [handle.remote() for _ in range(8)]
    wait_until_sync(lambda: any(_refused(each) for each in responses), within_s=10, what="a refusal")
    refused = sum(_refused(each) for each in responses)
    assert refused == 8 - 2 - 3, "two run, three wait, the rest is refused"


def _refused(response: serve.DeploymentResponse[Any]) -> bool:
    from salver.exceptions import BackPressureError

    try:
        response.result(timeout_s=0.01, cancel_on_timeout=False)
    except BackPressureError:
        return True
    except TimeoutError:
        return False
    return False


def test_a_killed_replica_is_replaced_and_what_waited_is_served() -> None:
    handle = serve.run(deployments.Mortal.bind(), name="mortal", route_prefix="/mortal")
    old = handle.pid.remote().result()
    running = handle.hang.remote()
    wait_until_sync(lambda: handle.hanging.remote().result(), within_s=10, what="the call to run")
    os.kill(old, signal.SIGKILL)
    with pytest.raises(ReplicaDiedError, match="died while it was working on request"):
        running.result(timeout_s=10)
    assert handle.pid.remote().result(timeout_s=10) != old


def test_an_update_loses_no_request() -> None:
    serve.run(deployments.Version.options(num_replicas=2).bind(0), name="versions", route_prefix="/versions")
    url = _url() + "/versions"
    stop = threading.Event()
    answers: list[str] = []
    failures: list[str] = []

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                response = client.post(url)
                (answers if response.status_code == 200 else failures).append(response.text)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for each in clients:
        each.start()
    wait_until_sync(lambda: "0" in answers, within_s=20, what="the first version")
    for version in range(1, 5):
        serve.run(deployments.Version.options(num_replicas=2).bind(version), name="versions", route_prefix="/versions")
    wait_until_sync(lambda: answers and answers[-1] == "4", within_s=20, what="the last version")
    stop.set()
    for each in clients:
        each.join()
    assert failures == []
    assert {"0", "4"} <= set(answers)


def test_a_failed_update_keeps_the_old_version_serving() -> None:
    handle = serve.run(deployments.Version.bind(1), name="careful", route_prefix=None)
    with pytest.raises(RuntimeError, match="negative versions are not served"):
        serve.run(deployments.Version.bind(-1), name="careful", route_prefix=None)
    assert serve.status().applications["careful"].status == "DEPLOY_FAILED"
    assert handle.get.remote().result(timeout_s=10) == "1"


def test_a_failed_deployment_refuses_callers_instead_of_letting_them_wait() -> None:
    with pytest.raises(RuntimeError, match="Deploying application bad failed"):
        serve.run(deployments.Version.bind(-1), name="bad", route_prefix="/bad")
    with pytest.raises(DeploymentUnavailableError):
        serve.get_deployment_handle("Version", "bad").get.remote().result(timeout_s=10)
    response = httpx.get(_url() + "/bad")
    assert response.status_code == 503
    assert "is unavailable because it failed to deploy" in response.text
    serve.delete("bad")


def test_delete_takes_the_application_and_its_route_away() -> None:
    serve.run(deployments.Version.bind(1), name="gone", route_prefix="/gone")
    assert httpx.get(_url() + "/gone").status_code == 200
    serve.delete("gone")
    serve.delete("gone")
    assert "gone" not in serve.status().applications
    assert httpx.get(_url() + "/gone").status_code == 404
    with pytest.raises(SalverError, match="Application 'gone' does not exist"):
        serve.get_app_handle("gone")


def test_handles_are_found_by_name() -> None:
    serve.run(deployments.Version.bind(5), name="named", route_prefix=None)
    assert serve.get_app_handle("named").get.remote().result() == "5"
    assert serve.get_deployment_handle("Version", "named").get.remote().result() == "5"
    with pytest.raises(KeyError, match="does not exist"):
        serve.get_deployment_handle("Nope", "named")
    with pytest.raises(SalverError, match="Please specify an application name"):
        serve.get_deployment_handle("Version")


def test_a_deployment_finds_its_siblings_and_itself_from_inside() -> None:
    handle = serve.run(deployments.Insider.bind(deployments.Version.bind(7)), name="inside", route_prefix=None)
    assert handle.look.remote().result() == {
        "app_name": "inside",
        "deployment": "Insider",
        "servable": "Insider",
        "sibling": "7",
        "app_handle": "DeploymentHandle(deployment='Insider')",
    }


def test_a_prefix_that_is_taken_is_refused() -> None:
    serve.run(deployments.Version.bind(1), name="first", route_prefix="/taken")
    with pytest.raises(SalverError, match='Prefix /taken is being used by application "first"'):
        serve.run(deployments.Version.bind(1), name="second", route_prefix="/taken")
    serve.delete("first")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("x", "must start with a forward slash"), ("/x/", "may not end with a trailing"), ("/{x}", "wildcards")],
)
def test_a_prefix_that_cannot_be_served_is_refused(prefix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serve.run(deployments.Version.bind(1), route_prefix=prefix)


def test_run_wants_an_application() -> None:
    with pytest.raises(TypeError, match="expects an `Application`"):
        serve.run(deployments.Version)  # type: ignore[arg-type]
    with pytest.raises(SalverError, match="must a non-empty string"):
        serve.run(deployments.Version.bind(1), name="")


def test_plain_methods_run_side_by_side_and_async_ones_do_not_wait_for_them() -> None:
    handle = serve.run(deployments.Threads.bind(), name="threads", route_prefix=None)
    blocked = [handle.meet.remote() for _ in range(2)]
    assert handle.quick.remote().result(timeout_s=10) == "quick"
    assert [each.result(timeout_s=10) for each in blocked] == ["met", "met"]


def test_gpus_are_given_out_by_index(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write(
            "gpus.py",
            """
            import os
            import salver as serve

            @serve.deployment(num_replicas=2, ray_actor_options={"num_gpus": 1})
            class Whole:
                def seen(self): return os.environ["CUDA_VISIBLE_DEVICES"]

            @serve.deployment(num_replicas=2, ray_actor_options={"num_gpus": 0.5})
            class Half:
                def seen(self): return os.environ["CUDA_VISIBLE_DEVICES"]

            @serve.deployment
            class Asks:
                def __init__(self, whole, half): self.whole, self.half = whole, half
                async def __call__(self):
                    return [sorted({await each.seen.remote() for _ in range(40)}) for each in (self.whole, self.half)]

            app = Asks.bind(Whole.bind(), Half.bind())
            """,
        )
        with place.run("gpus:app", "--num-gpus", "3") as run:
            whole, half = httpx.get(run.url(), timeout=30).json()
    assert len(whole) == 2
    assert len(half) == 1
    assert set(whole) | set(half) == {"0", "1", "2"}


def test_awaiting_from_another_loop_works() -> None:
    handle = serve.run(deployments.Calculator.bind(1), name="await", route_prefix=None)

    async def main() -> list[Any]:
        return await asyncio.gather(*[handle.add.remote(number) for number in range(20)])

    assert asyncio.run(main()) == list(range(1, 21))


def _url() -> str:
    from salver.api.driver import find_driver

    driver = find_driver()
    assert driver is not None
    assert driver.instance.http_url is not None
    return driver.instance.http_url
