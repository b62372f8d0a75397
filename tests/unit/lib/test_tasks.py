"""Background tasks: owned, never silent, ended together."""

import asyncio

from salver.lib.tasks import Tasks


class Heard:
    """Remembers which tasks failed."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        """Take note."""
        self.errors.append((name, error))


async def fail() -> None:
    """Fail."""
    raise ValueError("broken")


async def test_the_failure_of_a_task_is_heard_with_its_name() -> None:
    heard = Heard()
    tasks = Tasks(heard)
    await asyncio.wait([tasks.start(fail(), name="the work")])
    await asyncio.sleep(0)
    assert [(name, str(error)) for name, error in heard.errors] == [("the work", "broken")]
    assert len(tasks) == 0


async def test_a_task_that_ends_well_is_forgotten() -> None:
    heard = Heard()
    tasks = Tasks(heard)
    await tasks.start(asyncio.sleep(0), name="work")
    await asyncio.sleep(0)
    assert (len(tasks), heard.errors) == (0, [])


async def test_closing_cancels_what_runs_and_waits_for_it() -> None:
    heard, ended = Heard(), list[str]()
    tasks = Tasks(heard)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await tasks.close()
    assert (ended, len(tasks), heard.errors) == (["ended"], 0, [])


async def test_closing_ends_what_is_started_meanwhile() -> None:
    tasks = Tasks(Heard())

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.start(asyncio.Event().wait(), name="afterthought")

    tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await tasks.close()
    assert len(tasks) == 0


async def test_a_task_may_close_the_tasks_it_is_one_of() -> None:
    tasks = Tasks(Heard())
    tasks.start(asyncio.Event().wait(), name="other")
    await asyncio.wait_for(tasks.start(tasks.close(), name="closer"), timeout=1)
    await asyncio.sleep(0)
    assert len(tasks) == 0
