"""What user code knows of its request, wherever it runs."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import salver.context as serve_context
from salver.handle import DeploymentHandle
from salver.handle.request_context import RequestContext, enter_request, leave_request
from tests.unit.handle.worlds import World

Seen = tuple[str, str, str, str]


def seen() -> Seen:
    """Return what is known of the request here."""
    context = serve_context._serve_request_context.get()
    return context.request_id, context.route, context.multiplexed_model_id, context.session_id


@pytest.fixture(autouse=True)
def request_of_the_driver() -> Iterator[None]:
    token = enter_request(RequestContext("/shop", "r-1", "shop", "outer-model", "outer-session"))
    yield
    leave_request(token)


THE_CALL = ("r-1", "/shop", "model", "session")


class Everywhere:
    """Looks from all places that a handler may run code in."""

    def __init__(self) -> None:
        self.in_background: asyncio.Future[Seen] | None = None

    async def coroutine(self) -> Seen:
        return seen()

    def thread(self) -> Seen:
        return seen()

    async def to_thread(self) -> Seen:
        return await asyncio.to_thread(seen)

    async def own_executor(self) -> Seen:
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(pool, context.run, seen)

    def generator(self) -> Iterator[Seen]:
        for _ in range(3):
            yield seen()

    async def async_generator(self) -> AsyncIterator[Seen]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield seen()

    async def background(self) -> None:
        async def later() -> Seen:
            await asyncio.sleep(0.01)
            return seen()

        self.in_background = asyncio.get_running_loop().create_task(later())


@pytest.mark.parametrize("method", ["coroutine", "thread", "to_thread", "own_executor"])
async def test_the_request_is_known_wherever_a_handler_runs(world: World, method: str) -> None:
    handle = (await world.serve("everywhere", Everywhere)).options(multiplexed_model_id="model", session_id="session")
    assert await handle.options(method_name=method).remote() == THE_CALL


@pytest.mark.parametrize("method", ["generator", "async_generator"])
async def test_the_request_is_known_in_all_of_a_generator(world: World, method: str) -> None:
    handle = (await world.serve("everywhere", Everywhere)).options(multiplexed_model_id="model", session_id="session")
    stream = handle.options(method_name=method, stream=True).remote()
    assert [item async for item in stream] == [THE_CALL] * 3


async def test_the_request_is_known_in_what_goes_on_after_it(world: World) -> None:
    handle = (await world.serve("everywhere", Everywhere)).options(multiplexed_model_id="model", session_id="session")
    await handle.background.remote()
    later = world.servers["everywhere"].user_code.instance.in_background
    assert await later == THE_CALL


async def test_calls_of_a_call_know_the_request_and_its_route_but_their_own_model_and_session(world: World) -> None:
    inner: DeploymentHandle[Any] = await world.serve("inner", Everywhere)

    async def outer(model: str) -> Seen:
        return await inner.options(multiplexed_model_id=model).thread.remote()  # type: ignore[no-any-return]

    handle = (await world.serve("outer", outer)).options(multiplexed_model_id="model", session_id="session")
    assert await handle.remote("") == ("r-1", "/shop", "", "")
    assert await handle.remote("own") == ("r-1", "/shop", "own", "")


async def test_each_call_has_an_id_of_its_own_beside_that_of_the_request(world: World) -> None:
    async def own_id() -> tuple[str, str]:
        context = serve_context._get_serve_request_context()
        return context.request_id, context._internal_request_id

    handle = await world.serve("ids", own_id)
    first, second = await handle.remote(), await handle.remote()
    assert first[0] == second[0] == "r-1"
    assert len({"r-1", first[1], second[1]}) == 3
