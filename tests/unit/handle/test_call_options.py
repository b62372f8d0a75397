"""What `handle.options()` changes about calls."""

import threading
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from salver.schema.errors import SalverError
from tests.unit.handle.worlds import World, echo, in_thread


@pytest.mark.parametrize("name", ["cloudpickle", "pickle", "msgpack", "orjson"])
async def test_arguments_and_results_travel_in_any_serialization(world: World, name: str) -> None:
    handle = (await world.serve("echo", echo)).options(request_serialization=name, response_serialization=name)
    assert await handle.remote([1, 2], named="x" * 100_000) == [[1, 2], {"named": "x" * 100_000}]
    assert await handle.remote(handle.remote(5)) == 5
    assert await in_thread(lambda: handle.remote("from a thread").result(timeout_s=5)) == "from a thread"


async def test_request_and_response_may_differ_and_be_mixed_in_a_chain(world: World) -> None:
    handle = await world.serve("echo", echo)
    as_json = handle.options(response_serialization="orjson")
    as_msgpack = handle.options(request_serialization="msgpack")
    assert await as_msgpack.remote(as_json.remote((1, 2)), last=3) == [[1, 2], {"last": 3}]
    assert await handle.remote([as_json.remote(1)] and as_json.remote({"a": 1})) == {"a": 1}


async def test_a_bad_serialization_fails_at_the_call_and_not_before(world: World) -> None:
    handle = (await world.serve("echo", echo)).options(request_serialization="yaml")
    with pytest.raises(ValueError, match="no serialization 'yaml'; choose one of cloudpickle, pickle, msgpack, orjson"):
        handle.remote(1)


async def test_what_a_serialization_has_no_form_for_fails_where_the_call_is_made(world: World) -> None:
    handle = (await world.serve("echo", echo)).options(request_serialization="msgpack")
    with pytest.raises(TypeError, match=r"Argument 1 \(object\) of a call of .* cannot be pickled: .*object"):
        handle.remote(0, object())


def test_usual_serializations_make_no_difference() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("model")
    assert handle.options(request_serialization="cloudpickle") == handle
    assert handle.options(request_serialization="msgpack") != handle


def test_prefer_local_routing_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="_prefer_local_routing"):
        DeploymentHandle("model").options(_prefer_local_routing=True)


async def test_a_response_says_whether_it_is_by_reference(world: World) -> None:
    handle = await world.serve("echo", echo)
    by_reference, by_value = handle.remote(1), handle.options(_by_reference=False).remote(1)
    assert (by_reference.by_reference, by_value.by_reference) == (True, False)
    assert [await by_reference, await by_value] == [1, 1]


async def test_there_are_no_object_references_without_the_ray_engine(world: World) -> None:
    response = (await world.serve("echo", echo)).remote(1)
    with pytest.raises(SalverError, match="needs the Ray engine"):
        await response._to_object_ref()
    with pytest.raises(SalverError, match="needs the Ray engine"):
        response._to_object_ref_sync()
    await response


async def test_a_timeout_says_whether_a_replica_has_the_call(world: World) -> None:
    go_on = threading.Event()

    def blocking(_: Any = None) -> None:
        go_on.wait(10)

    handle = await world.serve("blocking", blocking, limit=1)

    def call() -> None:
        first, second = handle.remote(), handle.remote()
        third = handle.remote(first)
        for response, where in (
            (first, "replica shop#blocking#1 is working on it"),
            (second, "no replica has been free for it yet"),
            (third, "waits for a response among its arguments"),
        ):
            with pytest.raises(TimeoutError, match=where):
                response.result(timeout_s=0.05, cancel_on_timeout=False)
        go_on.set()
        third.result(timeout_s=5)
        second.result(timeout_s=5)

    await in_thread(call)
