"""`@multiplexed`: what it decorates, and when models are loaded, shared and unloaded."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, assert_type

import cloudpickle
import pytest

import salver as serve
from salver.handle.request_context import RequestContext, current_request, enter_request
from salver.replica.user_code import UserCode
from salver.runtime.context import ReplicaContext, set_replica_context
from salver.runtime.models import models_here, unload_models
from salver.runtime.multiplexing import BoundMultiplexed, Multiplexed
from salver.schema.ids import DeploymentID, ReplicaID
from tests.waiting import wait_until


class Model:
    """A model that says when it ends."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def __del__(self) -> None:
        self.log.append(f"end {self.name}")


class Server:
    """A deployment's class.

    Attributes:
        log: What was loaded and unloaded, in order.
        gates: Loads of these models wait for them.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.error: BaseException | None = None
        self.loading = 0
        self.most_loading = 0

    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id: str) -> Model:
        """Load a model."""
        self.log.append(f"load {model_id}")
        self.loading += 1
        self.most_loading = max(self.loading, self.most_loading)
        try:
            if (gate := self.gates.get(model_id)) is not None:
                await gate.wait()
            if self.error is not None:
                raise self.error
            return Model(model_id, self.log)
        finally:
            self.loading -= 1


@pytest.fixture
async def replica() -> AsyncIterator[None]:
    """Be a replica."""
    replica = ReplicaID("r1", DeploymentID("Server", "shop"))
    set_replica_context(ReplicaContext(replica, None, "v1"))
    yield
    await unload_models()
    set_replica_context(None)


@pytest.fixture
def server(replica: None) -> Server:
    return Server()


async def names(server: Server, *ids: str) -> list[str]:
    return [(await server.get_model(each)).name for each in ids]


# ── the contract's table of validations ─────────────────────────────────────────────────────────────────────────────


def test_validation_loader_not_async() -> None:
    message = "@serve.multiplexed can only be used to decorate async functions or methods"

    def plain(model_id: str) -> str:
        return model_id

    async def generator(model_id: str) -> Any:
        yield model_id

    wrong: Any
    for wrong in (plain, generator, 3, Server):
        with pytest.raises(TypeError, match=message):
            serve.multiplexed(wrong)
        with pytest.raises(TypeError, match=message):
            serve.multiplexed()(wrong)


@pytest.mark.parametrize("number", [1.5, 2.0, "3", None, True], ids=repr)
def test_validation_max_not_int(number: Any) -> None:
    with pytest.raises(TypeError, match="max_num_models_per_replica must be an integer"):
        serve.multiplexed(max_num_models_per_replica=number)


@pytest.mark.parametrize("number", [0, -2, -100])
def test_validation_max_not_positive(number: int) -> None:
    with pytest.raises(ValueError, match="max_num_models_per_replica must be positive"):
        serve.multiplexed(max_num_models_per_replica=number)


async def _nothing() -> None: ...
async def _two(model_id: str, other: str) -> None: ...
async def _keyword(model_id: str, *, other: str = "") -> None: ...
async def _many(*model_ids: str) -> None: ...


@pytest.mark.parametrize("function", [_nothing, _two, _keyword, _many])
def test_validation_signature_of_a_function(function: Any) -> None:
    with pytest.raises(TypeError, match=r"A function decorated with @serve.multiplexed takes exactly \(model_id\)"):
        serve.multiplexed(function)


def test_validation_signature_of_a_method() -> None:
    with pytest.raises(TypeError, match=r"A method decorated with @serve.multiplexed takes exactly \(self, model_id\)"):

        class Wrong:
            @serve.multiplexed  # type: ignore[arg-type]
            async def get_model(self) -> None: ...


@pytest.mark.parametrize("model_id", [3, None, b"x", ["x"]], ids=repr)
async def test_validation_model_id_not_str(server: Server, model_id: Any) -> None:
    with pytest.raises(TypeError, match="The model ID must be a string"):
        await server.get_model(model_id)


async def test_validation_model_id_empty(server: Server) -> None:
    with pytest.raises(ValueError, match="The model ID cannot be empty"):
        await server.get_model("")


async def test_validation_use_outside_a_replica() -> None:
    with pytest.raises(RuntimeError, match="can only be called in a deployment's replica"):
        await Server().get_model("a")


# ── the contract's table of rules ───────────────────────────────────────────────────────────────────────────────────


async def test_rule_call_returns_the_cached_model_or_loads_it(server: Server) -> None:
    first = await server.get_model("a")
    assert await server.get_model("a") is first
    assert server.log == ["load a"]


async def test_rule_call_marks_the_model_most_recently_used(server: Server) -> None:
    assert await names(server, "a", "b", "a", "c", "a") == ["a", "b", "a", "c", "a"]
    assert server.log == ["load a", "load b", "end b", "load c"]


async def test_rule_cache_evicts_before_the_load_of_the_new_one(server: Server) -> None:
    await names(server, "a", "b", "c")
    assert server.log == ["load a", "load b", "end a", "load c"]


async def test_rule_concurrent_loads_one_at_a_time(server: Server) -> None:
    server.gates = {"a": asyncio.Event()}
    both = [asyncio.create_task(server.get_model(each)) for each in "ab"]
    await wait_until(lambda: server.log, within_s=5, what="a load")
    server.gates["a"].set()
    assert [each.name for each in await asyncio.gather(*both)] == ["a", "b"]
    assert server.most_loading == 1


async def test_rule_concurrent_loads_waiters_of_one_id_share_the_load(server: Server) -> None:
    models = await asyncio.gather(*[server.get_model("a") for _ in range(10)])
    assert server.log == ["load a"]
    assert len({id(each) for each in models}) == 1


async def test_rule_unload_calls_a_sync_finalizer_once(server: Server) -> None:
    await names(server, "a", "b", "c")
    gc.collect()
    assert server.log.count("end a") == 1


async def test_rule_unload_awaits_an_async_finalizer_once(replica: None) -> None:
    log = []

    class Remote:
        async def __del__(self) -> None:
            await asyncio.sleep(0)
            log.append("end")

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(model_id: str) -> Remote:
        log.append(f"load {model_id}")
        return Remote()

    await get_model("a")
    await get_model("b")
    gc.collect()
    assert log == ["load a", "end", "load b"]


async def test_rule_unload_awaits_an_async_finalizer_that_is_inherited(replica: None) -> None:
    ended: list[str] = []

    class Base:
        async def __del__(self) -> None:
            await asyncio.sleep(0)
            ended.append(type(self).__name__)

    class Special(Base):
        """Inherits what ends it."""

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(model_id: str) -> Base:
        return Base() if model_id == "base" else Special()

    for each in ("base", "special", "base", "special", "base"):
        await get_model(each)
    gc.collect()
    assert ended == ["Base", "Special", "Base", "Special"]


async def test_rule_unload_runs_a_sync_finalizer_beside_the_loop(replica: None) -> None:
    loops: list[bool] = []

    class Heavy:
        def __del__(self) -> None:
            try:
                asyncio.get_running_loop()
                loops.append(True)
            except RuntimeError:
                loops.append(False)

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(model_id: str) -> Heavy:
        return Heavy()

    await get_model("a")
    await get_model("b")
    assert loops == [False]


async def test_rule_load_error_goes_to_all_waiters_and_is_logged_and_not_cached(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.error = ValueError("no such file")
    with caplog.at_level(logging.WARNING, logger="salver"):
        results = await asyncio.gather(*[server.get_model("a") for _ in range(3)], return_exceptions=True)
    assert results == [server.error] * 3
    assert "'a'" in caplog.text
    server.error = None
    assert await names(server, "a") == ["a"]
    assert server.log == ["load a", "load a"]


async def test_rule_load_error_leaves_the_evicted_evicted(server: Server) -> None:
    await names(server, "a", "b")
    server.error = ValueError("no such file")
    with pytest.raises(ValueError, match="no such file"):
        await server.get_model("c")
    assert models_here().ids == ("b",)


async def test_rule_replica_shutdown_unloads_all_models(server: Server) -> None:
    await names(server, "a", "b")
    await unload_models()
    gc.collect()
    assert server.log == ["load a", "load b", "end a", "end b"]


async def test_rule_propagation_loaded_and_loading_ids_are_told(server: Server) -> None:
    seen: list[tuple[str, ...]] = []
    models_here().on_change = lambda: seen.append(models_here().ids)
    server.gates = {"c": asyncio.Event()}
    await names(server, "a", "b")
    loading = asyncio.create_task(server.get_model("c"))
    await wait_until(lambda: server.loading, within_s=5, what="a load")
    assert seen[-1] == ("b", "c")
    assert ("a", "b") in seen
    server.gates["c"].set()
    await loading
    assert models_here().ids == ("b", "c")


async def test_rule_one_loader_per_class_instance_is_lifted(replica: None) -> None:
    class Two:
        @serve.multiplexed(max_num_models_per_replica=1)
        async def get_model(self, model_id: str) -> str:
            return f"model {model_id}"

        @serve.multiplexed(max_num_models_per_replica=1)
        async def get_adapter(self, model_id: str) -> str:
            return f"adapter {model_id}"

    two = Two()
    assert [await two.get_model("a"), await two.get_adapter("a"), await two.get_adapter("b")] == [
        "model a",
        "adapter a",
        "adapter b",
    ]
    assert models_here().ids == ("a", "b")


async def test_rule_requests_model_id(replica: None) -> None:
    enter_request(RequestContext(multiplexed_model_id="a"))
    assert serve.get_multiplexed_model_id() == "a"


def test_rule_without_id_it_is_empty() -> None:
    assert serve.get_multiplexed_model_id() == ""


# ── beyond the tables ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_minus_one_keeps_any_number(replica: None) -> None:
    loads: list[str] = []

    @serve.multiplexed(max_num_models_per_replica=-1)
    async def get_model(model_id: str) -> str:
        loads.append(model_id)
        return model_id

    for _ in range(2):
        for number in range(50):
            await get_model(str(number))
    assert len(loads) == 50


async def test_three_models_are_kept_where_no_number_is_said(replica: None) -> None:
    @serve.multiplexed
    async def get_model(model_id: str) -> str:
        return model_id

    for each in "abcd":
        await get_model(each)
    assert models_here().ids == ("b", "c", "d")


async def test_a_model_may_be_none(replica: None) -> None:
    loads: list[str] = []

    @serve.multiplexed
    async def get_model(model_id: str) -> None:
        loads.append(model_id)

    await get_model("a")
    await get_model("a")
    assert loads == ["a"]


async def test_a_cancelled_waiter_does_not_cancel_the_load_that_others_wait_for(server: Server) -> None:
    server.gates = {"a": asyncio.Event()}
    first, second = (asyncio.create_task(server.get_model("a")) for _ in range(2))
    await wait_until(lambda: server.loading, within_s=5, what="a load")
    first.cancel()
    await asyncio.wait([first])
    server.gates["a"].set()
    assert first.cancelled()
    assert (await second).name == "a"
    assert server.log == ["load a"]


async def test_a_load_that_has_begun_is_kept_for_whoever_comes_next(server: Server) -> None:
    server.gates = {"a": asyncio.Event()}
    only = asyncio.create_task(server.get_model("a"))
    await wait_until(lambda: server.loading, within_s=5, what="a load")
    only.cancel()
    await asyncio.wait([only])
    server.gates["a"].set()
    await names(server, "a")
    assert server.log == ["load a"]


async def test_a_load_that_has_not_begun_is_dropped_with_its_last_waiter(server: Server) -> None:
    server.gates = {"a": asyncio.Event()}
    loading, waiting = asyncio.create_task(server.get_model("a")), asyncio.create_task(server.get_model("b"))
    await wait_until(lambda: models_here().ids == ("a", "b"), within_s=5, what="two loads")
    waiting.cancel()
    await asyncio.wait([waiting])
    assert models_here().ids == ("a",)
    server.gates["a"].set()
    await loading
    await names(server, "c")
    assert server.log == ["load a", "load c"]


async def test_a_load_goes_on_when_the_request_that_began_it_ends(server: Server) -> None:
    server.gates = {"a": asyncio.Event()}
    request = RequestContext(request_id="1", multiplexed_model_id="a")

    async def asks() -> Model:
        enter_request(request)
        return await server.get_model("a")

    only = asyncio.create_task(asks())
    await wait_until(lambda: server.loading, within_s=5, what="a load")
    only.cancel()
    request.cancel(asyncio.get_running_loop().call_soon)
    request.is_over = True
    other = asyncio.create_task(server.get_model("a"))
    server.gates["a"].set()
    assert (await other).name == "a"


async def test_a_loader_works_for_the_model_and_not_for_the_request(replica: None) -> None:
    seen: list[RequestContext] = []

    @serve.multiplexed
    async def get_model(model_id: str) -> str:
        seen.append(current_request())
        return serve.get_multiplexed_model_id()

    request = RequestContext(request_id="1", app_name="shop", multiplexed_model_id="other", deadline=0.0)
    enter_request(request)
    assert await get_model("a") == "a"
    assert (seen[0].request_id, seen[0].app_name, seen[0].deadline) == ("1", "shop", None)
    assert seen[0].is_over
    assert current_request() is request


async def test_a_model_in_use_is_unloaded_after_those_that_are_not(server: Server) -> None:
    request = RequestContext(request_id="1")

    async def asks(model_id: str) -> None:
        enter_request(request)
        await server.get_model(model_id)

    await asyncio.create_task(asks("a"))
    await names(server, "b", "c")
    assert server.log == ["load a", "load b", "end b", "load c"]
    request.is_over = True
    await names(server, "d")
    assert server.log[-2:] == ["end a", "load d"]


async def test_an_error_in_a_finalizer_is_logged_and_the_next_model_is_loaded(
    replica: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("cannot end")

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(model_id: str) -> Broken:
        return Broken()

    with caplog.at_level(logging.WARNING, logger="salver"):
        await get_model("a")
        await get_model("b")
    assert "cannot end" in caplog.text
    assert models_here().ids == ("b",)


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), StopIteration()], ids=repr)
async def test_whatever_a_loader_raises_ends_only_the_requests_that_wait(server: Server, error: BaseException) -> None:
    server.error = error
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        await server.get_model("a")
    server.error = None
    assert await names(server, "a") == ["a"]


async def test_models_of_two_instances_are_their_own(replica: None) -> None:
    first, second = Server(), Server()
    assert await first.get_model("a") is not await second.get_model("a")


async def test_a_subclass_may_load_with_what_its_parent_loads(replica: None) -> None:
    class Special(Server):
        @serve.multiplexed(max_num_models_per_replica=2)
        async def get_model(self, model_id: str) -> Model:
            model = await super().get_model(f"base-{model_id}")
            return Model(f"{model.name}+{model_id}", self.log)

    assert await names(Special(), "a", "a") == ["base-a+a"] * 2


async def test_another_event_loop_is_refused_in_words(server: Server) -> None:
    await server.get_model("a")

    async def ask() -> Any:
        return await server.get_model("a")

    with pytest.raises(RuntimeError, match="in another event loop"):
        await asyncio.to_thread(asyncio.run, ask())


async def test_a_handle_may_call_it_as_any_async_method(replica: None) -> None:
    code = UserCode(Server, max_threads=1)
    await code.construct((), {})
    assert (await code.call("get_model", ("a",), {})).name == "a"


async def test_the_model_id_may_be_given_by_name(server: Server) -> None:
    assert (await server.get_model(model_id="a")).name == "a"


async def test_what_is_decorated_keeps_its_name_and_travels() -> None:
    assert Server.get_model.__name__ == "get_model"  # type: ignore[attr-defined]
    assert Server.get_model.__doc__ == "Load a model."
    copy = cloudpickle.loads(cloudpickle.dumps(_loader()))
    assert isinstance(copy, Multiplexed)


def _loader() -> Multiplexed[str]:
    @serve.multiplexed
    async def get_model(model_id: str) -> str:
        return model_id

    return get_model


def _types(server: Server) -> None:
    """For the type checker: callers see a function from an id to an awaitable model."""
    assert_type(server.get_model, BoundMultiplexed[Model])
    method: Callable[[str], Awaitable[Model]] = server.get_model
    function: Callable[[str], Awaitable[str]] = _loader()
    _ = method, function
