"""Values of a process, where threads may stand for processes."""

import asyncio
import contextvars
import threading

from salver.lib.process_local import ProcessLocal, become_process, shares_process


def test_a_value_is_the_same_in_all_threads_of_a_process() -> None:
    value: ProcessLocal[int] = ProcessLocal()
    seen: list[int | None] = []
    value.set(1)
    thread = threading.Thread(target=lambda: seen.append(value.get()))
    thread.start()
    thread.join()
    assert seen == [1]
    assert not shares_process()


async def test_a_thread_that_stands_for_a_process_has_values_of_its_own_and_so_has_what_it_starts() -> None:
    value: ProcessLocal[int] = ProcessLocal()
    value.set(1)

    async def as_process() -> tuple[bool, int | None, int | None, int | None]:
        become_process()
        before = value.get()
        value.set(2)
        in_thread = await asyncio.to_thread(value.get)
        in_task = await asyncio.get_running_loop().create_task(_get(value))
        return shares_process(), before, in_thread, in_task

    alone = contextvars.copy_context()
    task = asyncio.get_running_loop().create_task(as_process(), context=alone)
    assert await task == (True, None, 2, 2)
    assert value.get() == 1
    assert not shares_process()


async def _get(value: ProcessLocal[int]) -> int | None:
    return value.get()
