"""The user's class or function: constructed, called in the right place, reconfigured, closed once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from salver.lib import preloaded
from salver.replica.user_code import UserCode, resolve
from salver.schema.application import ImportedCode, PickledCode
from salver.schema.errors import NoSuchMethod, SalverError
from salver.schema.ids import ReplicaRank

here: ContextVar[str] = ContextVar("here", default="nowhere")


async def running(servable: Callable[..., Any], *args: Any, max_threads: int = 4, **kwargs: Any) -> UserCode:
    """Return user code that was constructed."""
    code = UserCode(servable, max_threads=max_threads)
    await code.construct(args, kwargs)
    return code


class Everything:
    """Has a method of each kind."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __call__(self, request: Any) -> Any:
        """Answer a request."""
        return request

    async def later(self, number: int) -> int:
        """An async method."""
        return self.number + number

    def now(self, number: int, *, plus: int = 0) -> int:
        """A sync method."""
        return self.number + number + plus

    def lazy(self) -> Any:
        """A sync method that returns an awaitable."""
        return self.later(1)

    def generate(self) -> Iterator[int]:
        """A generator."""
        yield 1

    async def generate_later(self) -> AsyncIterator[int]:
        """An async generator."""
        yield 1

    def stop(self) -> None:
        """What `next` does on an empty iterator."""
        next(iter(()))

    def thread(self) -> str:
        """Say where it runs."""
        return threading.current_thread().name

    async def loop_thread(self) -> str:
        """Say where it runs."""
        return threading.current_thread().name

    def _private(self) -> int:
        return 3


async def test_a_class_is_constructed_with_its_arguments() -> None:
    code = await running(Everything, number=5)
    assert isinstance(code.instance, Everything)
    assert await code.call("now", (1,), {"plus": 2}) == 8
    assert await code.call("later", (1,), {}) == 6


async def test_an_async_constructor_is_awaited() -> None:
    class Slow:
        async def __init__(self, name: str) -> None:  # type: ignore[misc]
            await asyncio.sleep(0)
            self.name = name

    assert (await running(Slow, "ready")).instance.name == "ready"


async def test_a_class_with_its_own_new_gets_the_arguments_there_too() -> None:
    class Made:
        made_with: tuple[Any, ...]

        def __new__(cls, *args: Any) -> "Made":
            made = super().__new__(cls)
            made.made_with = args
            return made

        def __init__(self, *args: Any) -> None:
            self.args = args

    instance = (await running(Made, 1, 2)).instance
    assert instance.made_with == instance.args == (1, 2)


async def test_an_error_in_the_constructor_passes_through() -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        await running(Broken)


@pytest.mark.parametrize("name", ["__call__", "now", "later", "_private"])
async def test_any_method_can_be_called_by_name(name: str) -> None:
    args = () if name == "_private" else (1,)
    assert await (await running(Everything)).call(name, args, {}) in (1, 3)


async def test_an_awaitable_that_a_sync_method_returns_is_awaited() -> None:
    assert await (await running(Everything, 2)).call("lazy", (), {}) == 3


async def test_a_function_is_called_as_it_is() -> None:
    def double(number: int) -> int:
        return 2 * number

    async def triple(number: int) -> int:
        return 3 * number

    assert await (await running(double)).call("__call__", (2,), {}) == 4
    assert await (await running(triple)).call("__call__", (2,), {}) == 6
    assert await (await running(partial(triple, 3))).call("__call__", (), {}) == 9


class Model:
    """An object that can be called."""

    async def __call__(self, number: int) -> int:
        """Answer in a coroutine."""
        return number + 1

    def add(self, number: int, plus: int) -> int:
        """Answer at once."""
        return number + plus


@pytest.mark.parametrize(
    "servable",
    [Model(), partial(Model()), partial(Model().add, plus=1), partial(partial(Model().add), plus=1)],
    ids=["object", "partial of an object", "partial of a method", "partial of a partial"],
)
async def test_whatever_can_be_called_is_called(servable: Callable[..., Any]) -> None:
    assert await (await running(servable)).call("__call__", (2,), {}) == 3


@pytest.mark.parametrize("name", ["static", "static_later", "of_class", "of_class_later"])
async def test_static_and_class_methods_are_called_like_others(name: str) -> None:
    class Kinds:
        @staticmethod
        def static(number: int) -> int:
            return number

        @staticmethod
        async def static_later(number: int) -> int:
            return number

        @classmethod
        def of_class(cls, number: int) -> int:
            assert issubclass(cls, Kinds)
            return number

        @classmethod
        async def of_class_later(cls, number: int) -> int:
            assert issubclass(cls, Kinds)
            return number

    assert await (await running(Kinds)).call(name, (7,), {}) == 7


async def test_a_missing_method_is_answered_with_those_that_there_are() -> None:
    code = await running(Everything)
    with pytest.raises(NoSuchMethod) as caught:
        await code.call("nope", (), {})
    assert str(caught.value) == (
        "Tried to call a method 'nope' that does not exist. Available methods: ['__call__', 'generate', "
        "'generate_later', 'later', 'lazy', 'loop_thread', 'now', 'stop', 'thread']."
    )


async def test_a_function_has_no_other_methods() -> None:
    code = await running(len)
    with pytest.raises(NoSuchMethod, match=r"Available methods: \['__call__'\]"):
        await code.call("upper", (), {})


async def test_an_attribute_that_is_no_method_cannot_be_called() -> None:
    with pytest.raises(NoSuchMethod, match="'number'"):
        await (await running(Everything)).call("number", (), {})


@pytest.mark.parametrize("name", ["generate", "generate_later"])
async def test_a_generator_is_a_type_error_that_says_how_to_call_it(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Method '{name}' returned a generator\. You must use .*stream=True"):
        await (await running(Everything)).call(name, (), {})


@pytest.mark.parametrize("over", ["a call", "HTTP"])
@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_a_generator_that_has_begun_is_closed(is_async: bool, over: str) -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append("sync")

    async def later_numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("async")

    kept: list[Any] = [later_numbers() if is_async else numbers()]

    async def begin() -> Any:
        assert (await anext(kept[0]) if is_async else next(kept[0])) == 1
        return kept[0]

    code = await running(begin)
    with pytest.raises(TypeError, match="returned a generator"):
        await (code.call("__call__", (), {}) if over == "a call" else code.call_with_request("the request"))
    assert closed == ["async" if is_async else "sync"]


async def test_stop_iteration_of_a_sync_method_is_an_error_and_not_a_call_without_end() -> None:
    code = await running(Everything)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(code.call("stop", (), {}), timeout=5)


async def test_an_async_method_runs_on_the_loop_and_a_sync_one_in_a_thread() -> None:
    code = await running(Everything)
    assert await code.call("loop_thread", (), {}) == threading.current_thread().name
    assert (await code.call("thread", (), {})).startswith("salver-user")


async def test_sync_methods_run_at_once_up_to_the_limit() -> None:
    barrier = threading.Barrier(3)

    def meet() -> str:
        barrier.wait(timeout=5)
        return here.get()

    async def call_from(place: str) -> Any:
        here.set(place)
        return await code.call("__call__", (), {})

    code = await running(meet, max_threads=3)
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(call_from(place)) for place in "abc"]
    assert [call.result() for call in calls] == ["a", "b", "c"], "each in the context of its own request"


async def test_the_number_of_threads_can_be_changed() -> None:
    barrier = threading.Barrier(3)
    code = await running(partial(barrier.wait, timeout=5), max_threads=1)
    code.change_max_threads(3)
    await asyncio.gather(*(code.call("__call__", (), {}) for _ in range(3)))


async def test_a_sync_method_sees_the_context_of_its_request() -> None:
    code = await running(here.get)
    token = here.set("in a request")
    try:
        assert await code.call("__call__", (), {}) == "in a request"
    finally:
        here.reset(token)


async def test_what_a_sync_method_sets_in_its_context_stays_there() -> None:
    code = await running(here.set)
    await code.call("__call__", ("elsewhere",), {})
    assert here.get() == "nowhere"


async def test_a_handler_without_parameters_gets_no_request() -> None:
    async def ping() -> str:
        return "pong"

    assert await (await running(ping)).call_with_request("the request") == "pong"
    assert await (await running(Everything)).call_with_request("the request") == "the request"


async def test_a_class_without_call_says_so_to_a_request() -> None:
    class Mute:
        pass

    with pytest.raises(NoSuchMethod, match="'__call__'"):
        await (await running(Mute)).call_with_request("the request")


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_reconfigure_gets_the_user_config(is_async: bool) -> None:
    class Sync:
        config: Any = None

        def reconfigure(self, user_config: Any) -> None:
            self.config = user_config

    class Async(Sync):
        async def reconfigure(self, user_config: Any) -> None:  # type: ignore[override]
            super().reconfigure(user_config)

    code = await running(Async if is_async else Sync)
    await code.reconfigure({"threshold": 1}, ReplicaRank(), serves=False)
    assert code.instance.config == {"threshold": 1}


async def test_without_a_user_config_reconfigure_is_not_needed() -> None:
    await (await running(Everything)).reconfigure(None, ReplicaRank(), serves=False)


@pytest.mark.parametrize("servable", [Everything, len, partial(len)], ids=["class", "function", "partial"])
async def test_a_user_config_that_nobody_takes_is_an_error(servable: Callable[..., Any]) -> None:
    code = UserCode(servable, max_threads=1)
    await code.construct((), {})
    with pytest.raises(SalverError, match="has no method `reconfigure"):
        await code.reconfigure({}, ReplicaRank(), serves=False)


def test_imported_code_is_found_by_its_path() -> None:
    assert resolve(ImportedCode(__name__, "Everything")) is Everything


def test_a_decorated_class_is_found_without_its_decoration(monkeypatch: pytest.MonkeyPatch) -> None:
    class Decorated:
        func_or_class = Everything

    monkeypatch.setitem(globals(), "decorated", Decorated())
    assert resolve(ImportedCode(__name__, "decorated")) is Everything


def test_pickled_code_is_found_among_what_was_preloaded() -> None:
    import cloudpickle

    blob = cloudpickle.dumps(lambda: 7)
    preloaded.load_all({preloaded.digest_of(blob): blob})
    assert resolve(PickledCode(preloaded.digest_of(blob)))() == 7


# Hooks


class Ranked:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any]] = []
        self.threads: set[int] = set()

    def reconfigure(self, user_config: Any, rank: ReplicaRank) -> None:
        self.calls.append((user_config, rank))
        self.threads.add(threading.get_ident())


async def test_reconfigure_gets_the_rank_where_it_has_a_parameter_for_it() -> None:
    code = await running(Ranked)
    assert code.takes_rank
    await code.reconfigure({"a": 1}, ReplicaRank(2, 1, 0), serves=False)
    assert code.instance.calls == [({"a": 1}, ReplicaRank(2, 1, 0))]


async def test_a_rank_is_told_even_without_a_user_config() -> None:
    code = await running(Ranked)
    await code.reconfigure(None, ReplicaRank(3), serves=False)
    assert code.instance.calls == [(None, ReplicaRank(3))]


async def test_a_reconfigure_without_a_rank_is_not_called_for_nothing() -> None:
    class Plain:
        def reconfigure(self, user_config: Any) -> None:
            raise AssertionError

    code = await running(Plain)
    assert not code.takes_rank
    await code.reconfigure(None, ReplicaRank(3), serves=False)
    await code.reconfigure(None, ReplicaRank(3), serves=True)


async def test_a_plain_reconfigure_runs_where_the_constructor_ran_and_later_beside_requests() -> None:
    code = await running(Ranked)
    await code.reconfigure(None, ReplicaRank(), serves=False)
    assert code.instance.threads == {threading.get_ident()}
    await code.reconfigure(None, ReplicaRank(), serves=True)
    assert len(code.instance.threads) == 2


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_check_health_may_be_plain_or_async(is_async: bool) -> None:
    class Sync:
        thread = 0

        def check_health(self) -> None:
            self.thread = threading.get_ident()
            raise ValueError("ill")

    class Async(Sync):
        async def check_health(self) -> None:  # type: ignore[override]
            super().check_health()

    code = await running(Async if is_async else Sync)
    with pytest.raises(ValueError, match="ill"):
        await code.check_health()
    assert (code.instance.thread == threading.get_ident()) is is_async


async def test_without_a_check_a_replica_is_well() -> None:
    await (await running(Everything)).check_health()
    await (await running(len)).check_health()


async def test_a_plain_check_that_hangs_holds_neither_the_loop_nor_requests_nor_reconfigure() -> None:
    release = threading.Event()

    class Hanging(Everything):
        def check_health(self) -> None:
            release.wait(20)

        def reconfigure(self, user_config: Any) -> None:
            pass

    code = await running(Hanging, max_threads=1)
    check = asyncio.get_running_loop().create_task(code.check_health())
    await asyncio.sleep(0)
    assert await code.call("now", (1,), {}) == 1
    await code.reconfigure({}, ReplicaRank(), serves=True)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    release.set()
