"""Every task has an owner: background tasks whose death is never silent."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

OnError = Callable[[str, BaseException], None]


async def next_turn() -> None:
    """Let everything else that is ready run first."""
    await asyncio.sleep(0)


class Tasks:
    """A set of background tasks that end together.

    Args:
        on_error: Called with the task's name and its exception when a task fails. It decides whether the whole
            process goes down; it is never skipped.
    """

    def __init__(self, on_error: OnError) -> None:
        self._on_error = on_error
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `work` in the background and return its task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self) -> None:
        """Cancel what still runs, and what is started meanwhile, and wait for it; the task that asks is left out."""
        while running := self._running - {asyncio.current_task()}:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)


def complain(_name: str, error: BaseException) -> None:
    """Report an error as one that nobody caught; for `Tasks` of a process that goes on."""
    sys.excepthook(type(error), error, error.__traceback__)
