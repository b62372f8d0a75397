"""Large arguments and results between real processes: they arrive, are used again, and nothing is left of them."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import salver as serve
from salver.exceptions import RequestCancelledError
from salver.schema.errors import ReplicaDiedError
from salver.transport import segments
from tests.system import large_deployments
from tests.system.serving import Place, new_place
from tests.unit.transport.large import files_of_segments, maps_of_segments
from tests.waiting import wait_until_sync

MB = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    named = set(os.listdir("/dev/shm"))
    with new_place(tmp_path_factory.mktemp("large")) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        patch.setattr(segments, "IDLE_S", 0.4)
        serve.start(proxy_location="Disabled")
        yield
        serve.shutdown()
        assert place.leftovers() == []
    wait_until_sync(lambda: not files_of_segments() and not maps_of_segments(), within_s=10, what="no segments")
    assert set(os.listdir("/dev/shm")) <= named


@pytest.fixture
def store() -> Iterator[Any]:
    yield serve.run(large_deployments.Store.bind(), name="store", route_prefix=None)
    serve.delete("store")


def array(size_bytes: int, value: float = 1.0) -> Any:
    return np.full(size_bytes // 8, value)


def held_by(pid: int) -> int:
    """Return how many segments a process has open or mapped; its own and others'."""
    return len(files_of_segments(pid)) + len(maps_of_segments(pid))


def test_an_array_of_100_mb_goes_there_and_back(store: Any) -> None:
    argument = array(100 * MB)
    for _ in range(3):
        assert store.total.remote(argument).result(timeout_s=30) == argument.size
        assert store.total_in_thread.remote(argument).result(timeout_s=30) == argument.size
    result = store.make.remote(argument.size, 2.0).result(timeout_s=30)
    assert (result == 2).all()
    result += 1
    again = store.make.remote(argument.size, 4.0).result(timeout_s=30)
    assert (again == 4).all()
    assert (result == 3).all()


def test_user_code_may_write_to_its_arguments(store: Any) -> None:
    argument = array(10 * MB)
    for _ in range(5):
        assert (store.add_one.remote(argument).result(timeout_s=30) == 2).all()
    assert (argument == 1).all()


def test_arrays_pass_through_a_chain(store: Any) -> None:
    front = serve.run(large_deployments.Front.bind(large_deployments.Store.bind()), name="chain", route_prefix=None)
    responses = [front.remote(array(8 * MB, float(value))) for value in range(6)]
    for value, response in enumerate(responses):
        assert (response.result(timeout_s=30) == value + 1).all()
    serve.delete("chain")


def test_refused_calls_arrive_all_the_same(store: Any) -> None:
    slow = serve.run(large_deployments.Slow.options(num_replicas=2).bind(), name="slow", route_prefix=None)
    responses = [slow.remote(array(MB, float(value))) for value in range(60)]
    assert [each.result(timeout_s=60) for each in responses] == [float(value) for value in range(60)]
    serve.delete("slow")


def test_a_burst_does_not_keep_its_memory(store: Any) -> None:
    pid = store.pid.remote().result(timeout_s=30)
    argument = array(8 * MB)
    for _ in range(2):
        responses = [store.total.remote(argument) for _ in range(200)]
        assert {each.result(timeout_s=60) for each in responses} == {float(argument.size)}
        del responses
    wait_until_sync(lambda: held_by(pid) == 0 and held_by(os.getpid()) == 0, within_s=40, what="no segments in use")


def test_what_user_code_keeps_stays_as_it_was(store: Any) -> None:
    for value in range(5):
        store.keep.remote(array(MB, float(value))).result(timeout_s=30)
    for _ in range(10):
        store.total.remote(array(MB, 99.0)).result(timeout_s=30)
    assert store.kept_total.remote().result(timeout_s=30) == sum(range(5)) * (MB // 8)
    store.drop.remote().result(timeout_s=30)


def test_a_killed_replica_leaves_nothing_behind(store: Any) -> None:
    pid = store.keep.remote(array(8 * MB, 3.0)).result(timeout_s=30)
    result = store.make.remote(MB, 5.0).result(timeout_s=30)
    running = store.hold.remote(array(8 * MB))
    wait_until_sync(lambda: held_by(pid) >= 2, within_s=20, what="the replica to have the arguments")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReplicaDiedError):
        running.result(timeout_s=30)
    assert (result == 5).all(), "what it answered is ours"
    del result
    assert store.total.remote(array(8 * MB)).result(timeout_s=30) == MB
    wait_until_sync(lambda: len(files_of_segments()) <= 2, within_s=40, what="spoiled segments to be closed")


def test_cancelled_calls_give_their_memory_back(store: Any) -> None:
    pid = store.pid.remote().result(timeout_s=30)
    for number in range(30):
        response = store.total.remote(array(8 * MB))
        if number % 3 == 0:
            response.cancel()
            with pytest.raises(RequestCancelledError):
                response.result(timeout_s=30)
    held = store.hold.remote(array(8 * MB))
    held.cancel()
    store.drop.remote().result(timeout_s=30)
    del response, held
    wait_until_sync(lambda: held_by(pid) == 0 and held_by(os.getpid()) == 0, within_s=40, what="no segments in use")


def test_a_killed_caller_leaves_nothing_behind(place: Place) -> None:
    place.write(
        "caller.py",
        """
        import os
        import numpy as np
        import salver as serve
        from tests.system import large_deployments

        serve.start(proxy_location="Disabled")
        store = serve.run(large_deployments.Store.bind(), name="store", route_prefix=None)
        store.keep.remote(np.full(1_000_000, 7.0)).result()
        held = [store.make.remote(1_000_000, 1.0).result() for _ in range(3)]
        print("HELD", store.pid.remote().result(), flush=True)
        store.hold.remote(np.ones(1_000_000)).result()
        """,
    )
    root = Path(__file__).parents[2]
    with place.start("caller.py", env={"PYTHONPATH": os.pathsep.join([*sys.path, str(root)])}) as run:
        line = run.wait_for("HELD")
        pid = int(line.split()[-1])
        wait_until_sync(lambda: held_by(pid) >= 2, within_s=20, what="the replica to have the arguments")
        family = run.family()
        run.signal(signal.SIGKILL)
        wait_until_sync(
            lambda: not any(each.is_running() for each in family), within_s=20, what="an end of all processes"
        )
    assert not [each for each in psutil.pids() if each == pid]


def test_memory_that_cannot_be_mapped_is_sent_by_socket() -> None:
    """Where `/proc` shows no descriptors of the other process, as in another container, payloads go by socket."""
    code = textwrap.dedent(
        """
        import numpy as np, salver as serve
        from tests.system import large_deployments
        from salver.transport import mappings

        def out_of_reach(*_): raise PermissionError(13, "no")
        mappings.Mapping.__init__ = out_of_reach  # replicas are forked from a zygote that has not run this

        serve.start(proxy_location="Disabled")
        store = serve.run(large_deployments.Store.bind(), route_prefix=None)
        for _ in range(3):
            assert (store.make.remote(1_000_000, 2.0).result(timeout_s=30) == 2).all()
            assert store.total.remote(np.ones(1_000_000)).result(timeout_s=30) == 1_000_000
        serve.shutdown()
        print("DONE")
        """
    )
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, root])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=50, check=False
    )
    assert "DONE" in done.stdout, done.stdout + done.stderr
