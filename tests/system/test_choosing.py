"""Broadcasts, chosen replicas, priorities, several applications at once: between real processes."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

import salver as serve
from salver.api.driver import find_driver
from salver.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    SalverError,
)
from salver.schema.ids import DeploymentID
from tests.system import surviving
from tests.system.serving import Place, get, new_place
from tests.waiting import wait_until, wait_until_sync


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One instance of this test process, for all tests of the module."""
    with new_place(tmp_path_factory.mktemp("choosing")) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield place
        serve.shutdown()
        assert place.leftovers() == []


def test_broadcast_reaches_every_replica_and_says_which_died() -> None:
    handle = serve.run(surviving.Model.options(num_replicas=3).bind(7), name="all", route_prefix=None)
    assert handle.broadcast("get").results(timeout_s=30) == [7, 7, 7]
    pids = handle.broadcast("pid").results(timeout_s=30)
    assert len(set(pids)) == 3
    assert handle.broadcast("pid").results(timeout_s=30) == pids, "the order is that of the replicas"
    os.kill(pids[1], signal.SIGKILL)
    wait_until_sync(lambda: _new_pids(handle, pids), within_s=30, what="another replica in its place")


def _new_pids(handle: serve.DeploymentHandle[Any], old: list[int]) -> bool:
    answers = handle.broadcast("pid").results(timeout_s=30, return_exceptions=True)
    assert all(isinstance(each, int | ReplicaDiedError | ReplicaUnavailableError) for each in answers)
    return {type(each) for each in answers} == {int} and len(set(answers) - set(old)) == 1 and len(answers) == 3


def test_a_chosen_replica_is_the_one_that_is_called() -> None:
    handle = serve.run(surviving.Model.options(num_replicas=3).bind(), name="one", route_prefix=None)

    async def choose() -> tuple[int, int]:
        async with handle.choose_replica() as selection:
            first = await handle.pid.dispatch(selection)
            assert selection.to_dict()["replica_id"].startswith("one#Model#")
        async with handle.choose_replica() as selection:
            os.kill(await handle.pid.remote(), 0)
            return first, await handle.pid.dispatch(selection)

    assert {*asyncio.run(choose())} <= {*handle.broadcast("pid").results(timeout_s=30)}


def test_large_arguments_reach_every_replica_and_the_chosen_one() -> None:
    handle = serve.run(surviving.Model.options(num_replicas=2).bind(), name="large", route_prefix=None)
    data = os.urandom(5 << 20)
    for _ in range(2):
        assert handle.broadcast("echo", data).results(timeout_s=30) == [data, data]

    async def choose() -> Any:
        async with handle.choose_replica() as selection:
            return await handle.echo.dispatch(selection, data)

    assert asyncio.run(choose()) == data


def test_a_slot_that_a_killed_process_had_reserved_is_free_again(instance: Place) -> None:
    handle = serve.run(surviving.Model.options(max_ongoing_requests=1).bind(5), name="slot", route_prefix=None)
    instance.write(
        "holder.py",
        """
        import asyncio
        import salver as serve

        async def hold():
            async with serve.get_app_handle("slot").choose_replica():
                print("chosen", flush=True)
                await asyncio.Event().wait()

        serve.connect()
        asyncio.run(hold())
        """,
    )
    with instance.start("holder.py") as holder:
        holder.wait_for("chosen")
        waiting = handle.get.remote()
        with pytest.raises(TimeoutError):
            waiting.result(timeout_s=0.1, cancel_on_timeout=False)
        holder.signal(signal.SIGKILL)
        assert waiting.result(timeout_s=30) == 5


def test_a_replica_that_is_killed_after_it_was_chosen_is_unavailable() -> None:
    handle = serve.run(surviving.Model.bind(), name="gone", route_prefix=None)

    async def choose() -> None:
        pid = await handle.pid.remote()
        async with handle.choose_replica() as selection:
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda: not psutil.pid_exists(pid), within_s=10, what="the end of the replica")
            with pytest.raises((ReplicaUnavailableError, ReplicaDiedError)):
                await handle.get.dispatch(selection)

    asyncio.run(asyncio.wait_for(choose(), 30))


def test_waiting_calls_are_served_by_priority_and_the_least_urgent_is_displaced(tmp_path: Path) -> None:
    handle = serve.run(surviving.Gate.bind(), name="gate", route_prefix=None)
    file = str(tmp_path / "open")
    first = handle.remote("first", file)
    driver = find_driver()
    assert driver is not None
    routers = driver.instance.session.routers

    def num_waiting() -> int:
        router = routers.find(DeploymentID("Gate", "gate"))
        return -1 if router is None else router.num_waiting

    wait_until_sync(lambda: num_waiting() == 0, within_s=10, what="a busy replica")
    calls = []
    for number, (name, priority) in enumerate([("background", 7), ("less", 5), ("urgent", 0)], 1):
        calls.append(handle.options(priority=priority).remote(name, file))
        wait_until_sync(lambda expected=number: num_waiting() == expected, within_s=10, what=name)  # type: ignore[misc]
    last = handle.remote("default", file)
    with pytest.raises(BackPressureError):
        calls[0].result(timeout_s=10)
    (tmp_path / "open").touch()
    served = [each.result(timeout_s=30) for each in (first, *calls[1:], last)]
    assert max(served, key=len) == ["first", "urgent", "default", "less"]


def test_the_header_priority_orders_what_waits_in_the_proxy(tmp_path: Path) -> None:
    file = tmp_path / "open"
    serve.run(surviving.HttpGate.bind(str(file)), name="http-gate", route_prefix="/gate")
    driver = find_driver()
    assert driver is not None
    url = urlsplit(driver.instance.http_url or "")
    sockets = []
    for name, priority in [("first", ""), ("background", "u=7"), ("default", ""), ("urgent", "u=0, i")]:
        sock = socket.create_connection((url.hostname, url.port), timeout=30)
        head = f"GET /gate?{name} HTTP/1.1\r\nHost: here\r\n" + (f"Priority: {priority}\r\n" if priority else "")
        sock.sendall(f"{head}\r\n".encode())
        sockets.append(sock)
        # Who comes later is answered by the proxy itself: by then it has read what came before.
        assert get(f"{driver.instance.http_url}/nothing-here").status_code == 404
        if name == "first":
            wait_until_sync((tmp_path / "open.busy").exists, within_s=10, what="a busy replica")
    file.touch()
    answers = [_body_of(sock) for sock in sockets]
    assert max(answers, key=len) == "first urgent default background"


def _body_of(sock: socket.socket) -> str:
    with sock:
        data = b""
        while not (data and b"\r\n\r\n" in data and data.partition(b"\r\n\r\n")[2]):
            data += sock.recv(4096)
        return data.partition(b"\r\n\r\n")[2].decode()


def test_run_many_deploys_all_and_says_which_failed() -> None:
    handles = serve.run_many(
        [
            serve.RunTarget(surviving.Model.bind(1), "many-1", "/many-1"),
            serve.RunTarget(surviving.Front.bind(surviving.Model.bind(2)), "many-2", "/many-2"),
        ]
    )
    assert [each.get.remote().result(timeout_s=30) for each in handles] == [1, 2]
    driver = find_driver()
    assert driver is not None
    assert [get(f"{driver.instance.http_url}/many-{number}").text for number in (1, 2)] == ["version 1", "version 2"]
    with pytest.raises(SalverError, match='Prefix /many-1 is being used by application "many-1"'):
        serve.run_many(
            [
                serve.RunTarget(surviving.Model.bind(), "many-3", "/many-3"),
                serve.RunTarget(surviving.Model.bind(), "many-4", "/many-1"),
            ]
        )
    assert {"many-3", "many-4"}.isdisjoint(serve.status().applications)
    with pytest.raises(RuntimeError, match="Deploying application many-6 failed"):
        serve.run_many(
            [
                serve.RunTarget(surviving.Model.bind(), "many-5", None),
                serve.RunTarget(surviving.Broken.options(max_constructor_retry_count=1).bind(), "many-6", None),
            ]
        )
    assert serve.get_app_handle("many-5").get.remote().result(timeout_s=30) == 0


def test_an_application_calls_another_until_it_is_deleted_and_then_hears_why() -> None:
    serve.run(surviving.Model.options(graceful_shutdown_timeout_s=0).bind(3), name="home", route_prefix=None)
    abroad = serve.run(surviving.Abroad.bind(), name="abroad", route_prefix=None)
    assert abroad.get.remote().result(timeout_s=30) == 3
    running = abroad.hang.remote()
    with pytest.raises(TimeoutError):
        running.result(timeout_s=0.2, cancel_on_timeout=False)
    serve.delete("home")
    with pytest.raises(ReplicaDiedError, match="died while it was working on request"):
        running.result(timeout_s=30)
    with pytest.raises((DeploymentUnavailableError, KeyError), match=r"its application was deleted|does not exist"):
        abroad.get.remote().result(timeout_s=30)


def test_handles_travel_both_ways_with_their_options() -> None:
    serve.run(surviving.Model.bind(4), name="home", route_prefix=None)
    abroad = serve.run(surviving.Abroad.bind(), name="abroad", route_prefix=None)
    there = serve.get_deployment_handle("Model", "home").options(method_name="get", session_id="a")
    assert abroad.use.remote(there).result(timeout_s=30) == (4, "a")
    back = abroad.handle.remote().result(timeout_s=30)
    assert back == serve.get_deployment_handle("Model", "home").options(method_name="get", priority=2)
    assert back.remote().result(timeout_s=30) == 4
