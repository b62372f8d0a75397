"""Threads for plain handlers."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from salver.replica.workers import Workers
from tests.waiting import wait_until

here: ContextVar[str] = ContextVar("here", default="nowhere")


def alive() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("salver-user")}


class Gate:
    """A function that waits in its thread until it is let on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.runs = 0

    def __call__(self) -> str:
        self.runs += 1
        self.entered.release()
        assert self.go_on.wait(10)
        return "done"


async def until(condition: Callable[[], bool], what: str) -> None:
    await wait_until(condition, within_s=5, what=what)


async def test_results_and_errors_come_back() -> None:
    workers = Workers(2)
    assert await workers.start(divmod, (7, 2), {}).future == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.start(divmod, (7, 0), {}).future
    workers.close()


async def test_a_function_sees_the_callers_context_and_leaves_it_alone() -> None:
    workers = Workers(1)
    here.set("outside")

    def look() -> str:
        seen = here.get()
        here.set("inside")
        return seen

    assert await workers.start(look, (), {}).future == "outside"
    assert here.get() == "outside"
    workers.close()


async def test_no_more_run_at_once_than_are_allowed_and_none_is_lost() -> None:
    workers = Workers(3)
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return number

    jobs = [workers.start(work, (number,), {}) for number in range(500)]
    assert await asyncio.gather(*(job.future for job in jobs)) == list(range(500))
    assert most <= 3
    workers.close()


async def test_threads_are_started_as_they_are_needed_and_end() -> None:
    before = alive()
    workers = Workers(50)
    for _ in range(20):
        await workers.start(int, (), {}).future
    assert len(alive() - before) == 1
    workers.close()
    await until(lambda: not alive() - before, "the threads' end")


async def test_a_job_that_waits_can_be_dropped_and_one_that_runs_cannot() -> None:
    workers = Workers(1)
    gate, never = Gate(), Gate()
    running = workers.start(gate, (), {})
    waiting = workers.start(never, (), {})
    await asyncio.to_thread(gate.entered.acquire)
    assert (workers.drop(waiting), workers.drop(running)) == (True, False)
    gate.go_on.set()
    assert await running.future == "done"
    assert await workers.start(str, ("next",), {}).future == "next"
    assert never.runs == 0
    workers.close()


async def test_who_gave_up_can_wait_for_the_end() -> None:
    workers = Workers(1)
    gate = Gate()
    job = workers.start(gate, (), {})
    await asyncio.to_thread(gate.entered.acquire)
    job.future.cancel()
    end = asyncio.get_running_loop().create_task(workers.outlast(job))
    await asyncio.sleep(0)
    assert not end.done()
    gate.go_on.set()
    await asyncio.wait_for(end, 5)
    await asyncio.wait_for(workers.outlast(job), 5)
    workers.close()


async def test_more_threads_may_run_and_fewer() -> None:
    before = alive()
    workers = Workers(1)
    gates = [Gate() for _ in range(3)]
    jobs = [workers.start(gate, (), {}) for gate in gates]
    workers.resize(3)
    for gate in gates:
        await asyncio.to_thread(gate.entered.acquire)
    workers.resize(1)
    for gate in gates:
        gate.go_on.set()
    assert await asyncio.gather(*(job.future for job in jobs)) == ["done"] * 3
    await until(lambda: len(alive() - before) == 1, "two threads' end")
    workers.close()
