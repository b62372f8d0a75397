"""Cancelled requests leave nothing behind, at whatever moment they are cancelled; `tests/soak/cancels.py` does more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import salver as serve
from tests.soak.cancels import run_deployments, serve_url, soak
from tests.system.serving import new_place

COUNT = 2000
GROWN_AT_MOST_SIZE_BYTES = 6_000_000


@pytest.fixture
def _instance(tmp_path: Path) -> Iterator[None]:
    """An instance of this test process, whose processes are the only ones that it has."""
    with new_place(tmp_path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


@pytest.mark.usefixtures("_instance")
def test_cancelled_requests_leave_no_handler_no_slot_and_no_memory() -> None:
    run_deployments()
    result = asyncio.run(soak(serve_url(), count=COUNT, warm_up=COUNT))
    assert sum(result.outcomes.values()) == COUNT
    assert min(result.outcomes.values()) > 0
    assert len(result.outcomes) >= 8, "every way to cancel was taken"
    assert [inside for inside, _ in result.counts] == [0, 0, 0, 0]
    assert min(entered for _, entered in result.counts) > COUNT / 50, "handlers ran in all deployments"
    grown = {
        name: after.memory_size_bytes - result.before[name].memory_size_bytes
        for name, after in result.after.items()
        if name in result.before
    }
    assert len(grown) >= 8, f"some processes were replaced: {sorted(result.before)}, then {sorted(result.after)}"
    assert max(grown.values()) < GROWN_AT_MOST_SIZE_BYTES, grown
