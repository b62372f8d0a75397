"""Results that go from deployment to deployment between real processes, past the caller that made both calls."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import salver as serve
from salver.exceptions import RemoteError
from salver.transport import segments
from salver.transport.mappings import Mapping
from tests.system import large_deployments
from tests.system.serving import new_place
from tests.unit.transport.large import files_of_segments, maps_of_segments
from tests.waiting import wait_until_sync

MB = 1_000_000
SIZE = 100 * MB // 8


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    named = set(os.listdir("/dev/shm"))
    with new_place(tmp_path_factory.mktemp("chains")) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        patch.setattr(segments, "IDLE_S", 0.4)
        serve.start(proxy_location="Disabled")
        yield
        serve.shutdown()
        assert place.leftovers() == []
    wait_until_sync(lambda: not files_of_segments() and not maps_of_segments(), within_s=10, what="no segments")
    assert set(os.listdir("/dev/shm")) <= named


@pytest.fixture
def stages() -> Iterator[tuple[Any, Any, Any]]:
    """Three deployments: one makes arrays, two take them."""
    names = ("first", "second", "third")
    apps = (large_deployments.Store.bind(), large_deployments.Passing.bind(), large_deployments.Passing.bind())
    handles = [serve.run(app, name=name, route_prefix=None) for app, name in zip(apps, names, strict=True)]
    yield handles[0], handles[1], handles[2]
    for name in names:
        serve.delete(name)


@pytest.fixture
def num_mapped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often this process mapped a payload."""
    mapped = [0]
    lend = Mapping.lend

    def count(mapping: Mapping) -> Any:
        mapped[0] += 1
        return lend(mapping)

    monkeypatch.setattr(Mapping, "lend", count)
    return mapped


def bytes_read_and_written() -> int:
    """Return what this process has moved by system calls so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]) + int(fields["wchar"])


def test_100_mb_pass_three_deployments_and_the_caller_neither_copies_nor_maps_them(
    stages: tuple[Any, Any, Any], num_mapped: list[int]
) -> None:
    make, echo, total = stages
    assert total.total_of_reference.remote([echo.echo.remote(make.make.remote(10, 1.0))]).result(timeout_s=30) == 10
    moved, faults = bytes_read_and_written(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    chained = echo.echo.remote(make.make.remote(SIZE, 1.0))
    assert total.total_of_reference.remote([chained]).result(timeout_s=60) == SIZE
    response = total.echo.remote(echo.echo.remote(make.make.remote(SIZE, 2.0)))
    wait_until_sync(lambda: response.settled, within_s=60, what="the end of the chain")
    assert num_mapped == [0]
    assert bytes_read_and_written() - moved < 5 * MB
    # To touch 100 MB takes 24,400 faults.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 5000
    assert maps_of_segments() == []
    result = response.result()
    assert (result == 2).all()
    assert num_mapped == [1]


def test_a_chain_survives_the_death_of_its_beginning(stages: tuple[Any, Any, Any]) -> None:
    make, _, total = stages
    victim = make.pid.remote().result(timeout_s=30)
    array = make.make.remote(SIZE, 3.0)
    reading = total.total_later.remote(array)
    wait_until_sync(lambda: total.waiting.remote().result(timeout_s=30) == 1, within_s=30, what="the reader")
    os.kill(victim, signal.SIGKILL)
    wait_until_sync(lambda: not Path(f"/proc/{victim}/fd").exists(), within_s=10, what="the end of the maker")
    # One that has it mapped, and one that is sent it now.
    total.release.remote().result(timeout_s=30)
    assert reading.result(timeout_s=30) == 3 * SIZE
    assert total.total_later.remote(array).result(timeout_s=30) == 3 * SIZE
    assert np.asarray(array.result(timeout_s=30))[0] == 3
    pid = total.pid.remote().result(timeout_s=30)
    del reading, array
    wait_until_sync(lambda: not files_of_segments() and not maps_of_segments(), within_s=30, what="no segments here")
    wait_until_sync(
        lambda: not files_of_segments(pid) and not maps_of_segments(pid), within_s=30, what="no segments there"
    )


def test_an_error_names_the_deployment_the_replica_and_the_request_that_raised_it_once() -> None:
    inner = large_deployments.Failing.options(name="Inner").bind()
    middle = large_deployments.Failing.options(name="Middle").bind(inner)
    handle = serve.run(large_deployments.Failing.options(name="Outer").bind(middle), name="failing", route_prefix=None)
    response = handle.remote()
    with pytest.raises(LookupError, match="nothing there") as caught:
        response.result(timeout_s=30)
    assert isinstance(caught.value, RemoteError)
    text = str(caught.value)
    assert text.count("In replica failing#") == 1
    assert "In replica failing#Inner#" in text
    assert text.count(response.request_id) == 1
    assert text.endswith("LookupError: nothing there")
    serve.delete("failing")
