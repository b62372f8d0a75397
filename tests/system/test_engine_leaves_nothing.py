"""Whoever of an agent's family is killed, nothing is left within five seconds: the engine's part of that promise."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from salver.engine import instances
from tests.agents import ROOT, short_dir
from tests.waiting import wait_until_sync

GONE_WITHIN_S = 5.0


class Family:
    """A driver, its agent, and all that came of it.

    Attributes:
        users: What a user's process started: one in its group, one in a session of its own.
    """

    def __init__(self, driver: subprocess.Popen[str], runtime_dir: Path) -> None:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        assert line, "the driver failed"
        told: dict[str, list[int]] = json.loads(line)
        self.driver = psutil.Process(driver.pid)
        self.agent = psutil.Process(told["agent"][0])
        self.base = psutil.Process(told["base"][0])
        self.users = [psutil.Process(pid) for pid in told["users"]]
        self.all = [psutil.Process(pid) for pid in told["all"]]
        self.port = told["port"][0]
        self.runtime_dir = runtime_dir

    def alive(self) -> list[psutil.Process]:
        """Return those of the family that still run."""
        return [each for each in self.all if is_alive(each)]

    def wait_until_gone(self, but: list[psutil.Process] | None = None) -> None:
        """Wait until nobody but these runs."""
        wait_until_sync(
            lambda: set(self.alive()) == set(but or []), within_s=GONE_WITHIN_S, what=f"an end of all but {but}"
        )

    def leftovers(self) -> list[Path]:
        """Return all files of the instance."""
        return list(self.runtime_dir.rglob("*"))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with short_dir() as base_dir:
        runtime_dir = base_dir / "run"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        command = [sys.executable, "-m", "tests.system.engine_driver", str(runtime_dir), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as driver:
            members = []
            try:
                each = Family(driver, runtime_dir)
                members = each.all
                yield each
            finally:
                driver.kill()
                for member in members:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()


def kill_driver(family: Family) -> None:
    family.driver.kill()


def kill_agent(family: Family) -> None:
    family.agent.kill()


def terminate_agent(family: Family) -> None:
    family.agent.terminate()


def kill_driver_and_agent(family: Family) -> None:
    family.driver.kill()
    family.agent.kill()


def kill_base_then_agent(family: Family) -> None:
    family.base.kill()
    wait_until_sync(lambda: replacements(family), within_s=GONE_WITHIN_S, what="another zygote")
    family.all += replacements(family)
    assert len(family.alive()) == len(family.all) - 1
    family.agent.kill()


def replacements(family: Family) -> list[psutil.Process]:
    known = {each.pid for each in family.all}
    return [each for each in family.agent.children() if each.pid not in known]


ENDS = [kill_driver, kill_agent, terminate_agent, kill_driver_and_agent, kill_base_then_agent]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_is_left(family: Family, end: Callable[[Family], None]) -> None:
    segments = set(os.listdir("/dev/shm"))
    assert len(family.all) >= 9, "agent, three zygotes, three processes, two of a user's"
    end(family)
    family.wait_until_gone()
    wait_until_sync(lambda: not family.leftovers(), within_s=GONE_WITHIN_S, what="an empty runtime directory")
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", family.port))
    wait_until_sync(lambda: set(os.listdir("/dev/shm")) <= segments, within_s=GONE_WITHIN_S, what="no new segment")


@pytest.mark.parametrize("end", [kill_driver, terminate_agent], ids=lambda end: end.__name__)
def test_an_orderly_end_lets_processes_finish(family: Family, tmp_path: Path, end: Callable[[Family], None]) -> None:
    end(family)
    family.wait_until_gone()
    assert (tmp_path / "finished").exists()


def test_the_next_start_sweeps_what_is_left_when_all_who_could_clean_up_die_at_once(family: Family) -> None:
    family.driver.kill()
    # So that it cannot replace its zygote in between.
    family.agent.suspend()
    family.base.kill()
    family.agent.kill()
    family.wait_until_gone(but=family.users)
    assert family.leftovers()
    path, lock_fd = instances.create(family.runtime_dir)
    family.wait_until_gone()
    assert family.leftovers() == [path]
    os.close(lock_fd)
