"""The user's `__del__`: awaited where it is async, and run exactly once."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from salver.replica.user_code import UserCode
from tests.unit.replica.test_user_code import running


class Closing:
    """Counts how often it is finalized."""

    closed: ClassVar[list[str]] = []

    def __init__(self, name: str = "it") -> None:
        self.name = name

    def __del__(self) -> None:
        self.closed.append(self.name)


@pytest.fixture
def closed() -> list[str]:
    gc.collect()
    Closing.closed.clear()
    return Closing.closed


async def test_the_finalizer_runs_once(closed: list[str]) -> None:
    code = await running(Closing)
    await code.close()
    assert closed == ["it"]
    del code
    gc.collect()
    assert closed == ["it"]


async def test_other_instances_of_the_class_are_finalized_all_the_same(closed: list[str]) -> None:
    other = Closing("other")
    await (await running(Closing)).close()
    del other
    gc.collect()
    assert closed == ["it", "other"]


async def test_an_instance_where_a_closed_one_was_is_finalized_again(closed: list[str]) -> None:
    for _ in range(50):
        await (await running(Closing)).close()
        # Python gives it the memory that has just become free, and with it the same id.
        Closing("next")
    assert closed == ["it", "next"] * 50


async def test_an_async_finalizer_is_awaited() -> None:
    done = []

    class Async:
        async def __del__(self) -> None:
            await asyncio.sleep(0)
            done.append("closed")

    code = await running(Async)
    await code.close()
    del code
    gc.collect()
    assert done == ["closed"]


async def test_an_error_in_the_finalizer_passes_through_and_it_is_not_run_again() -> None:
    runs = []

    class Broken:
        def __del__(self) -> None:
            runs.append(1)
            raise ValueError("cannot close")

    code = await running(Broken)
    with pytest.raises(ValueError, match="cannot close"):
        await code.close()
    del code
    gc.collect()
    assert len(runs) == 1


@pytest.mark.parametrize("servable", [object, len], ids=["class", "function"])
async def test_code_without_a_finalizer_is_closed_too(servable: Callable[..., Any]) -> None:
    code = UserCode(servable, max_threads=1)
    await code.construct((), {})
    await code.close()


async def test_the_instances_of_several_replicas_in_one_process_are_finalized_once_each(closed: list[str]) -> None:
    for _ in range(3):
        await (await running(Closing)).close()
    gc.collect()
    assert closed == ["it"] * 3
    Closing("nobody's")
    assert closed[3:] == ["nobody's"]
