"""Instance directories: short, private, locked while anyone lives, swept after."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.engine import instances
from salver.schema.errors import EngineUnavailable
from tests.agents import short_dir


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    with short_dir() as path:
        yield path / "run"


def test_a_new_directory_is_private_and_leaves_room_for_sockets(runtime_dir: Path) -> None:
    path, lock_fd = instances.create(runtime_dir)
    assert path.parent == runtime_dir
    assert path.stat().st_mode & 0o777 == 0o700
    assert not os.get_inheritable(lock_fd), "forks keep it, programs that they run do not"
    longest = instances.socket_path(str(path), "x" * 500)
    assert len(os.fsencode(longest)) <= instances.MAX_SOCKET_PATH_SIZE_BYTES
    os.close(lock_fd)


def test_directories_live_as_long_as_somebody_holds_them(runtime_dir: Path) -> None:
    (kept, kept_fd), (left, left_fd) = instances.create(runtime_dir), instances.create(runtime_dir)
    other_fd = instances.hold(kept)
    os.close(kept_fd)
    os.close(left_fd)
    assert instances.living(runtime_dir) == [kept]
    (left / "controller.sock").touch()
    instances.sweep(runtime_dir)
    assert list(runtime_dir.iterdir()) == [kept]
    os.close(other_fd)
    new, new_fd = instances.create(runtime_dir)
    assert list(runtime_dir.iterdir()) == [new], "creating sweeps too"
    os.close(new_fd)


def test_nothing_but_instances_is_swept(runtime_dir: Path) -> None:
    runtime_dir.mkdir()
    (runtime_dir / "mine").mkdir()
    (runtime_dir / "i-notes").mkdir()
    (runtime_dir / "i-00000000").symlink_to(runtime_dir / "mine")
    instances.sweep(runtime_dir)
    assert {path.name for path in runtime_dir.iterdir()} == {"mine", "i-notes", "i-00000000"}
    assert (runtime_dir / "mine").is_dir()


def test_sweeping_where_nothing_ever_ran_is_no_error(runtime_dir: Path) -> None:
    instances.sweep(runtime_dir)
    assert instances.living(runtime_dir) == []
    assert not runtime_dir.exists()


def test_the_last_instance_takes_the_runtime_directory_with_it(runtime_dir: Path) -> None:
    (one, one_fd), (two, two_fd) = instances.create(runtime_dir), instances.create(runtime_dir)
    instances.remove(one)
    assert two.exists()
    instances.remove(two)
    assert not runtime_dir.exists()
    os.close(one_fd)
    os.close(two_fd)


def test_a_removed_directory_cannot_be_held(runtime_dir: Path) -> None:
    path, lock_fd = instances.create(runtime_dir)
    os.close(lock_fd)
    instances.remove(path)
    with pytest.raises(EngineUnavailable, match="cannot be used: No such file or directory"):
        instances.hold(path)


def test_a_runtime_directory_that_others_may_write_to_is_refused(runtime_dir: Path) -> None:
    runtime_dir.mkdir()
    runtime_dir.chmod(0o777)
    with pytest.raises(EngineUnavailable, match=r"Others may write to .*SALVER_RUNTIME_DIR"):
        instances.create(runtime_dir)


def test_a_runtime_directory_that_leads_elsewhere_is_refused(runtime_dir: Path) -> None:
    runtime_dir.symlink_to(runtime_dir.parent)
    with pytest.raises(EngineUnavailable, match="cannot be used"):
        instances.create(runtime_dir)


def test_a_runtime_directory_with_a_long_path_is_refused(runtime_dir: Path) -> None:
    with pytest.raises(EngineUnavailable, match="too long for Unix sockets"):
        instances.create(runtime_dir / ("x" * 80))


@pytest.mark.parametrize("name", ["app#Digits#1a2b3c4d", "../../etc/passwd", "x" * 100, "größe", "\udcff", ""])
def test_names_that_a_path_cannot_hold_still_have_a_socket(name: str) -> None:
    path = Path(instances.socket_path("/run/i-00000000", name))
    assert path.parent == Path("/run/i-00000000")
    assert path.suffix == ".sock"
    assert path != Path(instances.socket_path("/run/i-00000000", name + "x"))


def test_short_names_are_kept() -> None:
    assert instances.socket_path("/run/i-00000000", "controller") == "/run/i-00000000/controller.sock"
