"""Graphs of calls that hypothesis draws: failures, cancellations and broken connections at any moment.

Every call is settled exactly once, with the right value where nothing disturbed it, and all memory that was lent comes
back.
"""

import asyncio
import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.handle import DeploymentResponse
from salver.handle.outcome import Outcome
from salver.handle.session import set_session
from salver.schema.errors import Disconnected, ReplicaDiedError, RequestCancelledError
from salver.schema.ids import DeploymentID
from salver.schema.topics import replicas_topic
from salver.transport.segments import process_pool
from tests.unit.handle.worlds import CodeError, World
from tests.unit.transport.large import files_of_segments, maps_of_segments, settle

LARGE = 20_000
DEPLOYMENTS = ("a", "b", "c")


@dataclass
class Node:
    """One call of a graph.

    Attributes:
        placed: Earlier calls whose results are arguments.
        nested: Those that go by reference.
        disturbed: Ticks after which something happens to it, and what; None for nothing.
    """

    deployment: str
    number: int
    is_large: bool
    fails: bool
    placed: list[int]
    nested: list[int]
    disturbed: tuple[int, str] | None


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Draw calls, each of which refers to earlier ones."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 8))):
        earlier = st.lists(st.integers(0, number - 1), max_size=2) if number else st.just([])
        disturbance = st.none() | st.tuples(st.integers(0, 12), st.sampled_from(["cancel", "cut", "await"]))
        nodes.append(
            Node(
                draw(st.sampled_from(DEPLOYMENTS)),
                number + 1,
                draw(st.booleans()),
                draw(st.integers(0, 9)) == 0,
                draw(earlier),
                draw(earlier),
                draw(disturbance),
            )
        )
    return nodes


def total_of(value: Any) -> int:
    """Return what a result stands for."""
    return int(value[0]) if isinstance(value, np.ndarray) else int(value)


async def work(node: Node, inside: list[DeploymentResponse[Any]], *placed: Any) -> Any:
    """Add up what it is given."""
    await asyncio.sleep(0)
    if node.fails:
        raise CodeError(node.number, "drawn")
    total = node.number + sum(total_of(each) for each in placed)
    for each in inside:
        total += total_of(await each)
    return np.full(LARGE, total) if node.is_large else total


def expected(nodes: list[Node], index: int) -> int | None:
    """Return what a call's result stands for if nothing disturbs it; None if it fails."""
    node = nodes[index]
    parts = [expected(nodes, each) for each in (*node.placed, *node.nested)]
    if node.fails or None in parts:
        return None
    return node.number + sum(each for each in parts if each is not None)


async def disturb(world: World, node: Node, response: DeploymentResponse[Any]) -> None:
    """Let something happen after so many ticks."""
    if node.disturbed is None:
        return
    ticks, what = node.disturbed
    for _ in range(ticks):
        await asyncio.sleep(0)
    if what == "cancel":
        response.cancel()
    elif what == "await":
        await asyncio.wait([asyncio.get_running_loop().create_task(outcome_of(response))])
    elif world.network.ends[1:]:
        # The first is that of the controller, which then tells of the replicas again.
        world.network.ends[1 + ticks % len(world.network.ends[1:])].cut()
        for name in DEPLOYMENTS:
            topic = replicas_topic(DeploymentID(name, "shop"))
            world.controller.publish(topic, world.controller.topics[topic].value)


async def outcome_of(response: DeploymentResponse[Any]) -> int | BaseException:
    """Return what a response stands for, or its error."""
    try:
        return total_of(await response)
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error.with_traceback(None)


async def run(nodes: list[Node]) -> None:
    """Make the calls, and look at what becomes of them."""
    world = World()
    await world.connect()
    handles = {name: await world.serve(name, work, limit=3) for name in DEPLOYMENTS}
    responses: list[DeploymentResponse[Any]] = []
    for node in nodes:
        inside = [responses[each] for each in node.nested]
        responses.append(handles[node.deployment].remote(node, inside, *[responses[each] for each in node.placed]))
    async with asyncio.timeout(10):
        await asyncio.gather(*(disturb(world, *each) for each in zip(nodes, responses, strict=True)))
        found = [await outcome_of(each) for each in responses]
    calm = all(node.disturbed is None or node.disturbed[1] == "await" for node in nodes)
    for index, outcome in enumerate(found):
        right = expected(nodes, index)
        if calm or isinstance(outcome, int):
            assert outcome == right or (right is None and isinstance(outcome, CodeError)), f"call {index}: {outcome!r}"
        else:
            known = (CodeError, RequestCancelledError, ReplicaDiedError, Disconnected)
            assert isinstance(outcome, known), f"call {index}: {outcome!r}"
    responses.clear()
    inside = []
    await finish(world)


async def finish(world: World) -> None:
    """Let everything end; nothing is left."""
    set_session(None)
    await settle()
    gc.collect()
    await settle()
    assert sum(each.num_lent for each in process_pool()._readers if hasattr(each, "num_lent")) == 0
    assert not any(server.admission.taken for server in world.servers.values())
    for end in world.network.ends:
        end.cut()
    await world.tasks.close()
    await settle()
    assert (files_of_segments(), maps_of_segments()) == ([], [])


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@given(nodes=graphs())
@settings(max_examples=40, deadline=None)
def test_every_call_of_a_graph_is_settled_once_and_all_memory_comes_back(nodes: list[Node]) -> None:
    again: list[str] = []

    def settle_once(name: str) -> Any:
        original = getattr(Outcome, name)

        def wrapper(outcome: Outcome, what: Any) -> None:
            if outcome.settled:
                again.append(f"{name} {what!r}")
            original(outcome, what)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for name in ("settle", "settle_failed"):
            patch.setattr(Outcome, name, settle_once(name))
        asyncio.run(run(nodes))
    assert again == []
