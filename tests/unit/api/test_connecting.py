"""Which instance an address means."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.api.connecting import instance_at
from salver.engine import instances
from salver.schema.errors import EngineUnavailable, SalverError
from tests.agents import short_dir


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    with short_dir() as path:
        yield path / "salver"


@pytest.fixture
def instance(runtime_dir: Path) -> Iterator[Path]:
    """An instance whose lock this process holds."""
    path, lock = instances.create(runtime_dir)
    instances.describe(path, 11, 22, "http://127.0.0.1:8000")
    yield path
    os.close(lock)


def test_the_only_instance_is_meant_by_nothing(runtime_dir: Path, instance: Path) -> None:
    assert instance_at(None, runtime_dir) == instances.Found(instance, 11, 22, "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "http://127.0.0.1:8000", "localhost:8000", "10.0.0.1:80", "[::1]:80", "tcp://x"]
)
def test_an_address_of_another_machine_is_refused(runtime_dir: Path, address: str) -> None:
    with pytest.raises(SalverError, match="a client connects to an instance of this machine only"):
        instance_at(address, runtime_dir)


def test_an_instance_that_is_not_ready_or_left_is_none(runtime_dir: Path) -> None:
    path, lock = instances.create(runtime_dir)
    with pytest.raises(SalverError, match="No instance runs in"):
        instance_at(None, runtime_dir)
    with pytest.raises(SalverError, match=f"No instance runs at {path}"):
        instance_at(path, runtime_dir)
    instances.describe(path, 11, 22, None)
    assert str(instance_at(path, runtime_dir)) == f"{path} (process 22)"
    os.close(lock)
    with pytest.raises(SalverError, match=f"No instance runs at {path}"):
        instance_at(path, runtime_dir)


def test_a_directory_that_others_may_enter_is_not_entered(runtime_dir: Path, instance: Path) -> None:
    instance.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="not this user's alone"):
        instance_at(instance, runtime_dir)


def test_a_broken_description_is_none(runtime_dir: Path, instance: Path) -> None:
    (instance / "instance.json").write_text("{}")
    with pytest.raises(SalverError, match="No instance runs"):
        instance_at(None, runtime_dir)
