"""Responses among the arguments of calls: as arguments themselves, by reference, and passed on without being opened."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from salver.handle import DeploymentResponse
from salver.schema.errors import RemoteError, RequestCancelledError, SalverError
from salver.transport.mappings import Mapping
from salver.transport.segments import process_pool
from tests.unit.handle.worlds import CodeError, Hanging, World, echo, fail, in_thread
from tests.unit.transport.large import files_of_segments, maps_of_segments, settle
from tests.waiting import wait_until

SIZE = 100_000


@pytest.fixture(autouse=True)
async def nothing_left(world: World) -> AsyncIterator[None]:
    """Nothing is lent at the end of a test, and nothing is left once its connections are cut."""
    yield
    gc.collect()
    await settle()
    lent = [each.num_lent for each in process_pool()._readers if hasattr(each, "num_lent")]
    assert sum(lent) == 0
    for end in world.network.ends:
        end.cut()
    await settle()
    assert process_pool().num_segments == 0
    assert files_of_segments() == []
    assert maps_of_segments() == []


class Opened:
    """Counts how often it is unpickled; by name, since it travels."""

    counts: dict[str, int] = {}  # noqa: RUF012 - of all of them, on purpose

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: dict[str, str]) -> None:
        self.name = state["name"]
        Opened.counts[self.name] = Opened.counts.get(self.name, 0) + 1


async def make_opened(name: str) -> Opened:
    """Return one."""
    return Opened(name)


async def name_of(opened: Opened) -> str:
    """Return its name."""
    return opened.name


@dataclass
class Basket:
    """Has a response in an attribute."""

    content: Any


async def first_of(values: Any) -> Any:
    """Await what is inside."""
    inside = values
    while not isinstance(inside, DeploymentResponse):
        match inside:
            case Basket():
                inside = inside.content
            case dict():
                [inside] = inside.values()
            case _:
                inside = inside[0]
    return await inside


async def make_array(value: float) -> Any:
    """Return a large array."""
    return np.full(SIZE, value)


async def test_a_result_is_unpickled_once_where_it_is_first_awaited(world: World) -> None:
    handle = await world.serve("make", make_opened)
    response = handle.remote("once")
    await wait_until(lambda: response.settled, within_s=5, what="the answer")
    assert "once" not in Opened.counts
    first = await response
    assert await response is first
    assert await in_thread(response.result) is first
    assert Opened.counts["once"] == 1


async def test_a_result_that_nobody_awaits_is_never_unpickled(world: World) -> None:
    handle = await world.serve("make", make_opened)
    response = handle.remote("never")
    await wait_until(lambda: response.settled, within_s=5, what="the answer")
    assert "never" not in Opened.counts


async def test_a_thread_unpickles_what_it_waits_for_itself(world: World) -> None:
    class Noting:
        async def __call__(self) -> Any:
            return ThreadNoted()

    handle = await world.serve("noting", Noting)
    assert await in_thread(lambda: handle.remote().result(timeout_s=5).thread == threading.get_ident())


class ThreadNoted:
    """Remembers in which thread it was unpickled."""

    def __setstate__(self, _state: object) -> None:
        self.thread = threading.get_ident()

    def __getstate__(self) -> Any:
        return {"something": 1}


async def test_a_result_that_is_passed_on_is_not_unpickled_by_the_caller(world: World) -> None:
    make, name = await world.serve("make", make_opened), await world.serve("name", name_of)
    assert await name.remote(make.remote("passed on")) == "passed on"
    assert Opened.counts["passed on"] == 1


async def test_a_result_that_was_awaited_before_is_passed_on_as_a_value(world: World) -> None:
    make, name = await world.serve("make", make_opened), await world.serve("name", name_of)
    response = make.remote("awaited")
    opened = await response
    opened.name = "changed since"
    assert await name.remote(response) == "changed since"


async def test_the_same_response_may_be_several_arguments(world: World) -> None:
    handle = await world.serve("echo", echo)
    response = handle.remote(5)
    assert await handle.remote(response, response, again=response) == [5, 5, {"again": 5}]


async def test_a_chain_of_large_results_is_never_mapped_by_the_caller(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = []
    lend = Mapping.lend

    def note(mapping: Mapping) -> Any:
        mapped.append(mapping)
        return lend(mapping)

    monkeypatch.setattr(Mapping, "lend", note)
    make, handle = await world.serve("make", make_array), await world.serve("echo", echo)
    result = await handle.remote(handle.remote(make.remote(3.0)))
    assert (result == 3).all()
    # Once by each replica that was sent it, and here, where it is awaited.
    assert len(mapped) == 3
    mapped.clear()


async def test_a_large_result_is_passed_on_though_its_replica_is_gone(world: World) -> None:
    make, handle = await world.serve("make", make_array), await world.serve("echo", echo)
    response = make.remote(4.0)
    await wait_until(lambda: response.settled, within_s=5, what="the answer")
    world.network.ends[-1].cut()
    await settle()
    results = [await handle.remote(response), await handle.remote(response), await response]
    assert [each[0] for each in results] == [4, 4, 4]


async def test_a_large_result_is_passed_on_in_parts_where_it_cannot_be_mapped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, handle = await world.serve("make", make_array), await world.serve("echo", echo)
    response = make.remote(5.0)
    await wait_until(lambda: response.settled, within_s=5, what="the answer")

    def out_of_reach(*_: Any) -> Any:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Mapping, "__init__", out_of_reach)
    first = await world.serve("first", first_of)
    assert (await first.remote([response]))[0] == 5
    assert (await handle.remote(handle.remote(response)) == 5).all()


@pytest.mark.parametrize(
    "wrap",
    [lambda each: [each], lambda each: {"key": each}, lambda each: (each,), Basket, lambda each: [{"deep": (each,)}]],
    ids=["list", "dict", "tuple", "attribute", "deep"],
)
async def test_a_response_inside_an_argument_goes_by_reference(world: World, wrap: Callable[[Any], Any]) -> None:
    handle, first = await world.serve("echo", echo), await world.serve("first", first_of)
    assert await first.remote(wrap(handle.remote(6))) == 6
    assert await in_thread(lambda: first.remote(wrap(handle.remote(7))).result(timeout_s=5)) == 7


async def test_a_call_with_a_reference_begins_before_what_it_refers_to_has_come(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    seen = []

    async def wait_for(values: list[Any]) -> Any:
        seen.append("begun")
        return await values[0]

    waiting = await world.serve("waiting", wait_for)
    argument = handle.remote("late")
    response = waiting.remote([argument])
    await wait_until(lambda: seen, within_s=5, what="the call")
    assert not argument.settled
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await response == "late"


async def test_an_error_comes_by_reference_as_its_own_type(world: World) -> None:
    failing, first = await world.serve("fail", fail), await world.serve("first", first_of)
    with pytest.raises(CodeError) as caught:
        await first.remote([failing.remote()])
    assert isinstance(caught.value, RemoteError)
    assert "in fail" in str(caught.value)


async def test_a_cancelled_call_is_cancelled_for_those_that_have_it_by_reference(world: World) -> None:
    handle, first = await world.serve("hanging", Hanging), await world.serve("first", first_of)
    argument = handle.remote()
    response = first.remote([argument])
    await asyncio.sleep(0.01)
    argument.cancel()
    with pytest.raises(RequestCancelledError):
        await response


async def test_large_results_come_by_reference_and_go_on_to_a_third(world: World) -> None:
    make, first = await world.serve("make", make_array), await world.serve("first", first_of)

    async def pass_on(values: list[Any]) -> Any:
        return [float((await first.remote(values))[0]), float((await first.remote([{"again": values[0]}]))[1])]

    middle = await world.serve("middle", pass_on)
    assert await middle.remote([make.remote(8.0)]) == [8, 8]


async def test_a_reference_may_be_awaited_after_the_call_was_answered(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    kept: list[Any] = []

    async def keep(values: list[Any]) -> None:
        kept.extend(values)

    keeping = await world.serve("keeping", keep)
    await keeping.remote([handle.remote("later")])
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await kept[0] == "later"
    kept.clear()


async def test_a_reference_whose_caller_is_gone_fails_plainly(world: World) -> None:
    handle = await world.serve("hanging", Hanging)
    kept: list[Any] = []

    async def keep(values: list[Any]) -> None:
        kept.extend(values)

    keeping = await world.serve("keeping", keep)
    await keeping.remote([handle.remote()])
    world.network.ends[-1].cut()
    with pytest.raises(SalverError, match="The process that passed this response by reference is gone"):
        await kept[0]
    kept.clear()


async def test_a_reference_that_is_cancelled_leaves_the_call_alone(world: World) -> None:
    handle = await world.serve("hanging", Hanging)

    async def give_up(values: list[Any]) -> bool:
        values[0].cancel()
        try:
            await values[0]
        except RequestCancelledError:
            return True
        return False

    argument = handle.remote("goes on")
    assert await (await world.serve("giving_up", give_up)).remote([argument])
    world.servers["hanging"].user_code.instance.go_on.set()
    assert await argument == "goes on"


async def test_a_response_that_a_handler_returns_is_refused(world: World) -> None:
    handle = await world.serve("echo", echo)

    async def return_response() -> Any:
        return [handle.remote(1)]

    with pytest.raises(SalverError, match="`DeploymentResponse` is not serializable"):
        await (await world.serve("returning", return_response)).remote()


async def test_a_refused_call_is_sent_again_with_all_that_is_attached(world: World) -> None:
    handle, make = await world.serve("hanging", Hanging, limit=1), await world.serve("make", make_array)
    responses = [handle.remote([make.remote(float(number)), make.remote(0.0)]) for number in range(4)]
    placed = [handle.remote(make.remote(float(number))) for number in range(4)]
    world.servers["hanging"].admission.change_limit(0)
    await settle()
    world.servers["hanging"].admission.change_limit(1)
    world.servers["hanging"].user_code.instance.go_on.set()
    assert [float((await each)[0]) for each in placed] == [0, 1, 2, 3]
    for each in responses:
        with pytest.raises(SalverError, match="not serializable"):
            await each
