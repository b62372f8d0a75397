"""A held loop is seen from outside."""

import threading
import time

import pytest

from salver.replica import watchdog as module
from salver.replica.watchdog import Watchdog
from tests.waiting import wait_until


class Reports(list[tuple[float, str]]):
    """What a watchdog reported, and in which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def add(self, held_s: float, where: str) -> None:
        self.append((held_s, where))
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Reports:
    monkeypatch.setattr(module, "REPORT_EVERY_S", 0.05)
    return Reports()


async def test_a_loop_that_turns_is_not_reported(seen: Reports) -> None:
    dog = Watchdog(seen.add, beat_s=0.01, held_after_s=5.0)
    first = dog._last_beat
    await wait_until(lambda: dog._last_beat > first, within_s=5, what="a beat")
    dog.close()
    assert seen == []


async def test_a_held_loop_is_reported_while_it_is_held_with_the_place(seen: Reports) -> None:
    dog = Watchdog(seen.add, beat_s=0.01, held_after_s=0.1)

    def crunch() -> None:
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    crunch()
    assert len(seen) >= 2
    assert seen[0][0] < seen[1][0]
    assert "in crunch" in seen[0][1]
    assert seen.threads == {"salver-watchdog"}
    held_s = dog.held_s()
    assert held_s >= 0.1
    await wait_until(lambda: dog._held_before_s >= 0.1, within_s=5, what="a beat after it")
    assert dog.held_s() >= 0.1
    dog.close()


async def test_a_closed_watchdog_ends_its_thread() -> None:
    dog = Watchdog(lambda held_s, where: None, beat_s=0.01)
    assert dog._thread.is_alive()
    dog.close()
    await wait_until(lambda: not dog._thread.is_alive(), within_s=5, what="an end of the thread")
