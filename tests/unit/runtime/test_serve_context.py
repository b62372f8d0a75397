"""`salver.context`: what code knows of its replica and its request."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import salver.context as serve_context
from salver.handle.request_context import RequestContext, enter_request, leave_request
from salver.runtime.context import ReplicaContext
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank


def request_id() -> str:
    return serve_context._serve_request_context.get().request_id


def test_outside_of_a_request_all_is_empty() -> None:
    context = serve_context._get_serve_request_context()
    assert (context.route, context.request_id, context.app_name) == ("", "", "")
    assert (context.multiplexed_model_id, context.session_id, context.grpc_context) == ("", "", None)
    assert not context.is_http_request


def test_a_request_has_the_fields_of_the_contract() -> None:
    token = enter_request(RequestContext("/shop", "r-1", "shop", "model-a", "session-b", True))
    context = serve_context._serve_request_context.get()
    assert (context.route, context.request_id, context.app_name) == ("/shop", "r-1", "shop")
    assert (context.multiplexed_model_id, context.session_id) == ("model-a", "session-b")
    assert context.is_http_request
    assert context.cancel_on_parent_request_cancel
    assert context._internal_request_id == context._internal_request_id != context.request_id
    assert context._internal_request_id != RequestContext()._internal_request_id
    leave_request(token)


async def test_the_request_is_known_in_tasks_and_to_thread_and_by_a_copied_context_in_an_executor() -> None:
    token = enter_request(RequestContext(request_id="r-2"))
    assert await asyncio.to_thread(request_id) == "r-2"

    async def background() -> str:
        await asyncio.sleep(0)
        return request_id()

    task = asyncio.get_running_loop().create_task(background())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(request_id).result() == ""
        assert pool.submit(contextvars.copy_context().run, request_id).result() == "r-2"
    leave_request(token)
    assert await task == "r-2"
    assert request_id() == ""


def test_tests_of_user_code_may_say_which_request_it_is() -> None:
    def work() -> str:
        serve_context._serve_request_context.set(serve_context._RequestContext(multiplexed_model_id="1"))
        return serve_context._get_serve_request_context().multiplexed_model_id

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(contextvars.copy_context().run(work)))
    thread.start()
    thread.join()
    assert found == ["1"]


def test_a_replica_knows_its_rank_and_how_many_there_are_to_be() -> None:
    replica = ReplicaID("1234abcd", DeploymentID("model", "shop"))
    alone = ReplicaContext(replica, None, "v1")
    assert (alone.rank, alone.world_size) == (ReplicaRank(0, 0, 0), 1)
    third = ReplicaContext(replica, None, "v1", ReplicaRank(rank=2, node_rank=1, local_rank=0), 4)
    assert (third.rank.rank, third.rank.node_rank, third.rank.local_rank, third.world_size) == (2, 1, 0, 4)
