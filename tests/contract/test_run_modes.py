"""An application behaves the same in processes and in local testing mode: the same tests against both.

Whatever users can rely on in calls, errors, limits, composition and HTTP belongs here.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import salver as serve
from salver.api.driver import find_driver
from salver.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RemoteError,
    RequestCancelledError,
    SalverError,
)
from salver.testing import http_app
from tests.contract import run_mode_apps as apps
from tests.system.serving import new_place
from tests.waiting import wait_until

Client = Callable[[], httpx.AsyncClient]


@pytest.fixture(scope="module", params=["local", "processes"])
def mode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One instance for all tests, whose every `serve.run` uses it."""
    path: Path = tmp_path_factory.mktemp(request.param)
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        patch.setenv("SALVER_LOCAL_TESTING_MODE", "1" if request.param == "local" else "0")
        serve.start(http_options={"port": 0})
        yield request.param
        serve.shutdown()
        assert place.leftovers() == []


pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def client(mode: str) -> Client:
    """Return what makes an HTTP client of the instance."""

    def make() -> httpx.AsyncClient:
        if mode == "local":
            return httpx.AsyncClient(transport=httpx.ASGITransport(http_app()), base_url="http://testserver")
        driver = find_driver()
        assert driver is not None
        return httpx.AsyncClient(base_url=str(driver.instance.http_url), timeout=30)

    return make


def run(app: Any, **options: Any) -> serve.DeploymentHandle[Any]:
    """Run an application for handles only, under the name of its ingress."""
    return serve.run(app, **{"name": repr(app), "route_prefix": None, **options})


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_methods_are_called_with_any_arguments_from_where_there_is_no_loop() -> None:
    handle = run(apps.Calculator.bind(10))
    assert handle.add.remote(1, 2, extra=3).result() == 16
    assert handle.options(method_name="add_async").remote(1).result() == 11
    assert handle.remote({"any": ["thing"]}).result() == {"any": ["thing"]}


async def test_a_response_is_awaited_as_often_as_wanted_in_the_callers_loop() -> None:
    response = run(apps.Calculator.bind(10)).add.remote(1)
    assert (await response, await response) == (11, 11)
    assert response.request_id


async def test_a_response_that_nobody_awaits_is_computed_all_the_same() -> None:
    handle = run(apps.Sleeper.bind())
    handle.sleep.remote()
    await wait_until(lambda: _is(handle.counts.remote(), (1, 0)), within_s=10, what="the call")


async def test_a_blocking_wait_is_refused_in_a_loop() -> None:
    with pytest.raises(RuntimeError, match="Use `await response` instead"):
        run(apps.Calculator.bind(10)).add.remote(1).result()


async def test_arguments_and_results_are_copies() -> None:
    values = [0]
    assert await run(apps.Calculator.bind(0)).append.remote(values) == [0, 1]
    assert values == [0]


async def test_a_large_array_arrives_and_may_be_written_to() -> None:
    sent = np.ones(1_000_000)
    handle = run(apps.Calculator.bind(0))
    arrived = await asyncio.gather(*[handle.remote(sent) for _ in range(4)])
    for each in arrived:
        each[0] = 2
        assert each.sum() == 1_000_001
    assert sent[0] == 1


async def test_what_cannot_be_pickled_is_refused_on_both_ways() -> None:
    handle = run(apps.Calculator.bind(0))
    with pytest.raises(TypeError, match="pickle"):
        await handle.remote(threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        await handle.lock.remote()


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_exception_keeps_its_type_and_brings_its_traceback() -> None:
    with pytest.raises(apps.CustomError) as caught:
        await run(apps.Calculator.bind(0)).fail.remote("why")
    assert isinstance(caught.value, RemoteError)
    assert caught.value.detail == "why"
    assert "in fail" in str(caught.value)


async def test_an_unknown_method_lists_those_that_exist() -> None:
    with pytest.raises(SalverError, match=r"'nope' that does not exist. Available methods: \['__call__', 'add'"):
        await run(apps.Calculator.bind(0)).nope.remote()


def test_a_constructor_that_raises_fails_the_run_with_its_words() -> None:
    with pytest.raises(Exception, match="in the constructor"):
        run(apps.Broken.options(max_constructor_retry_count=1).bind(), name="broken")
    assert serve.status().applications["broken"].status == "DEPLOY_FAILED"
    serve.delete("broken")


# ── cancellation and limits ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_call_cancels_its_handler_and_what_that_has_called() -> None:
    handle = run(apps.Parent.bind(apps.Sleeper.bind()), name="cancels")
    sleeper = serve.get_deployment_handle("Sleeper", "cancels")
    response = handle.wait.remote()
    await wait_until(lambda: _is(sleeper.counts.remote(), (1, 0)), within_s=10, what="the call")
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    await wait_until(lambda: _is(sleeper.counts.remote(), (1, 1)), within_s=10, what="the cancellation")


def test_a_timeout_cancels_the_call() -> None:
    handle = run(apps.Sleeper.bind())
    response = handle.sleep.remote()
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.1)
    asyncio.run(wait_until(lambda: _is(handle.counts.remote(), (1, 1)), within_s=10, what="the cancellation"))


async def test_no_more_requests_run_at_once_than_the_limit_says() -> None:
    handle = run(apps.Gate.bind())
    assert max(await asyncio.gather(*[handle.remote() for _ in range(20)])) == 2


async def test_calls_above_the_queue_are_refused() -> None:
    handle = run(apps.Full.bind())
    responses = [handle.remote() for _ in range(3)]
    with pytest.raises(BackPressureError) as caught:
        await handle.remote()
    assert caught.value.message.endswith("(num_queued_requests=2, max_queued_requests=2).")
    for each in responses:
        each.cancel()
    outcomes = await asyncio.gather(*responses, return_exceptions=True)
    assert [type(each) for each in outcomes] == [RequestCancelledError] * 3


async def test_calls_of_a_deleted_application_say_so() -> None:
    handle = run(apps.Calculator.bind(0), name="gone")
    serve.delete("gone")
    with pytest.raises(DeploymentUnavailableError):
        await handle.add.remote(1)


# ── composition, configuration, context ─────────────────────────────────────────────────────────────────────────────


async def test_responses_are_arguments_and_handles_are_found_in_containers() -> None:
    handle = run(apps.pipeline())
    assert await handle.chained.remote("a b c") == 6
    assert await handle.blocking.remote("a b c") == 3
    assert await handle.fan_out.remote(["a", "a b", ""]) == [1, 2, 0]


async def test_all_calls_of_a_request_have_its_id() -> None:
    response = run(apps.pipeline()).ids.remote()
    assert await response == [response.request_id] * 2


async def test_model_and_session_are_said_for_each_call_and_go_no_further() -> None:
    handle = run(apps.pipeline()).options(multiplexed_model_id="outer", session_id="mine")
    assert await handle.hints.remote() == [("", ""), ("inner", "")]
    run(apps.Splitter.bind(), name="splitter")
    asked = serve.get_app_handle("splitter").options(multiplexed_model_id="m", session_id="s")
    assert await asked.hints.remote() == ("m", "s")


def test_user_config_reaches_reconfigure_at_start_and_again_when_it_changes() -> None:
    assert run(apps.Configured.bind(), name="configured").get.remote().result() == 3
    changed = apps.Configured.options(user_config={"threshold": 4})
    assert run(changed.bind(), name="configured").get.remote().result() == 4


@pytest.mark.parametrize("method", ["who", "who_sync"])
async def test_each_replica_knows_which_it_is(method: str) -> None:
    handle = run(apps.Pair.bind(), name="pair")
    told = await asyncio.gather(*[handle.options(method_name=method).remote() for _ in range(20)])
    assert {(app, deployment, own) for app, deployment, _, _, own in told} == {("pair", "Pair", True)}
    tags = {tag for _, _, tag, _, _ in told}
    assert tags == {started_as for *_, started_as, _ in told}
    assert len(tags) == 2


async def test_handles_are_found_by_name_inside_a_replica_and_outside() -> None:
    run(apps.Insider.bind(apps.Calculator.bind(5)), name="inside")
    inside = serve.get_app_handle("inside")
    assert await inside.look.remote() == [6, "DeploymentHandle(deployment='Insider')"]
    assert await inside.look_sync.remote() == 6
    with pytest.raises(KeyError, match="does not exist"):
        serve.get_deployment_handle("Nothing", "inside")


def test_a_run_of_the_same_name_replaces_the_application() -> None:
    for base in (1, 2):
        assert run(apps.Calculator.bind(base), name="same").add.remote(0).result() == base
    assert serve.status().applications["same"].status == "RUNNING"


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def api(mode: str) -> None:
    """Run an application of FastAPI."""
    run(apps.Api.bind(apps.Calculator.bind(5)), name="api", route_prefix="/api")


@pytest.fixture
def plain(mode: str) -> None:
    """Run an application of a plain handler."""
    run(apps.Plain.bind(), name="plain", route_prefix="/plain")


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("method", "path", "json", "status", "answer"),
    [
        ("POST", "/api/predict", {"x": 2}, 201, {"y": 7.0}),
        ("GET", "/api/depends?q=4", None, 200, 8),
        ("GET", "/api/state", None, 200, "hello"),
        ("GET", "/api/module", None, 200, "module"),
        ("GET", "/api/root", None, 200, {"root_path": "/api", "path": "/api/root"}),
        ("GET", "/api/nothing", None, 404, {"detail": "Not Found"}),
        ("DELETE", "/api/state", None, 405, {"detail": "Method Not Allowed"}),
    ],
)
async def test_an_application_of_fastapi_answers(
    client: Client, method: str, path: str, json: Any, status: int, answer: Any
) -> None:
    async with client() as each:
        response = await each.request(method, path, json=json)
    assert (response.status_code, response.json()) == (status, answer)
    assert response.headers["x-request-id"]


@pytest.mark.usefixtures("api")
async def test_a_body_that_is_not_valid_is_a_422(client: Client) -> None:
    async with client() as each:
        response = await each.post("/api/predict", json={"x": "no number"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "x"]


@pytest.mark.usefixtures("api")
async def test_a_streamed_answer_arrives_whole(client: Client) -> None:
    async with client() as each:
        response = await each.get("/api/stream")
    assert response.text == "0\n1\n2\n3\n4\n"


@pytest.mark.usefixtures("api")
async def test_the_documentation_knows_the_routes_without_self(client: Client) -> None:
    async with client() as each:
        document = (await each.get("/api/openapi.json")).json()
    assert "parameters" not in document["paths"]["/state"]["get"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("query", "status", "kind", "text"),
    [
        ("as=text", 200, "text/plain; charset=utf-8", "text"),
        ("as=bytes", 200, "text/plain", "bytes"),
        ("as=none", 200, "text/plain", ""),
        ("as=model", 200, "application/json", '{"x":1.0}'),
        ("", 200, "application/json", '{"method":"GET","path":"/plain/a b","size":0}'),
        ("as=busy", 503, "text/plain; charset=utf-8", None),
    ],
)
async def test_a_plain_handlers_results_are_encoded(
    client: Client, query: str, status: int, kind: str, text: str | None
) -> None:
    async with client() as each:
        response = await each.get(f"/plain/a%20b?{query}")
    assert (response.status_code, response.headers["content-type"]) == (status, kind)
    assert text is None or response.text == text


@pytest.mark.usefixtures("plain")
async def test_a_head_request_is_told_the_length_and_sent_nothing(client: Client) -> None:
    async with client() as each:
        response = await each.head("/plain?as=text")
    assert (response.headers["content-length"], response.content) == ("4", b"")


@pytest.mark.usefixtures("plain")
async def test_a_handler_that_raises_is_a_500_with_the_requests_id(client: Client) -> None:
    async with client() as each:
        response = await each.get("/plain?as=raise", headers={"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "mine")
    assert "custom: over HTTP" in response.text, "on loopback, the traceback is shown"


@pytest.mark.usefixtures("plain")
async def test_a_clients_request_id_is_the_requests(client: Client) -> None:
    async with client() as each:
        response = await each.get("/plain?as=id", headers={"x-request-id": "mine"})
    assert (response.text, response.headers["x-request-id"]) == ("mine", "mine")


@pytest.mark.usefixtures("plain")
async def test_a_request_that_takes_longer_than_its_client_waits_is_a_408(client: Client) -> None:
    async with client() as each:
        response = await each.get("/plain?as=wait", headers={"x-request-timeout-seconds": "0.1"})
    assert response.status_code == 408


@pytest.mark.usefixtures("plain")
async def test_a_long_body_arrives_whole_however_it_is_sent(client: Client) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield bytes(50_000)

    async with client() as each:
        whole = await each.post("/plain", content=bytes(2_000_000))
        piecewise = await each.post("/plain", content=pieces())
    assert (whole.json()["size"], piecewise.json()["size"]) == (2_000_000, 2_000_000)


async def test_a_full_queue_is_a_503_with_the_seconds_to_wait(client: Client) -> None:
    full = apps.Full.options(backpressure_config={"retry_after_s": 2})
    run(full.bind(), name="full", route_prefix="/full")
    async with client() as each:
        asked = [asyncio.ensure_future(each.get("/full")) for _ in range(4)]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        for request in waiting:
            request.cancel()
        [refused] = [request.result() for request in done]
        await asyncio.gather(*waiting, return_exceptions=True)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


@pytest.mark.usefixtures("plain")
async def test_the_proxys_own_paths_answer(client: Client) -> None:
    async with client() as each:
        assert (await each.get("/-/healthz")).text == "success"
        assert (await each.get("/-/routes")).json()["/plain"] == "plain"
        assert (await each.get("/nowhere")).status_code == 404


async def _is(response: Any, expected: Any) -> bool:
    return bool(await response == expected)
