"""Random graphs of deployments in local testing mode: every request gets one answer, the right one, and nothing stays.

Whatever fails, is cancelled, runs out of time or is refused on the way: no slot and no place in a queue is lost.
"""

import asyncio
from typing import Any, Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

import salver as serve
from salver.exceptions import BackPressureError, RequestCancelledError
from salver.testing import local_app
from tests.component.graph_nodes import (
    LIVING,
    MEETINGS,
    Answer,
    Ask,
    Failed,
    Meeting,
    Shape,
    application,
    expected,
    method_of,
    reachable,
)
from tests.waiting import wait_until

MAX_NODES = 5
END_WITHIN_S = 20


class Request(NamedTuple):
    """What a client does.

    Attributes:
        patience_s: After so many seconds it gives up in its way.
    """

    ask: Ask
    way: Literal["waits", "cancels", "times_out", "leaves"]
    patience_s: float


@st.composite
def graphs(draw: st.DrawFn) -> list[Shape]:
    """Return the nodes of a graph without cycles."""
    size = draw(st.integers(1, MAX_NODES))
    shapes = []
    for node in range(size):
        later = list(range(node + 1, size))
        children = draw(st.lists(st.sampled_from(later), max_size=3)) if later else []
        shapes.append(
            Shape(
                children=tuple(children),
                pattern=draw(st.sampled_from(["in_turn", "together", "chained"])),
                is_async=draw(st.booleans()),
                num_replicas=draw(st.integers(1, 2)),
                max_ongoing_requests=draw(st.integers(1, 3)),
                max_queued_requests=draw(st.sampled_from([-1, -1, 1, 3])),
            )
        )
    return shapes


NODES = st.frozensets(st.integers(0, MAX_NODES - 1), max_size=2)
REQUESTS = st.lists(
    st.builds(
        Request,
        ask=st.builds(Ask, st.integers(), NODES | st.just(frozenset()), NODES | st.just(frozenset()), NODES),
        way=st.sampled_from(["waits", "waits", "cancels", "times_out", "leaves"]),
        patience_s=st.sampled_from([0.0, 0.001, 0.005, 0.03]),
    ),
    min_size=1,
    max_size=10,
)


async def outcome_of(handle: Any, request: Request) -> Any:
    """Send a request; return its answer or what it raised."""
    response = handle.remote(request.ask)
    try:
        if request.way == "times_out":
            return await asyncio.wait_for(response, request.patience_s)
        if request.way == "cancels":
            asyncio.get_running_loop().call_later(request.patience_s, response.cancel)
        if request.way == "leaves":
            task = asyncio.ensure_future(_answer(response))
            asyncio.get_running_loop().call_later(request.patience_s, task.cancel)
            return await task
        answer = await response
        assert request.way != "waits" or await response == answer, "awaited again, it is the same"
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    return answer


def check(shapes: list[Shape], request: Request, outcome: Any) -> None:
    """Fail where an outcome is not one of those that are right."""
    match outcome:
        case RequestCancelledError():
            assert request.way == "cancels"
        case asyncio.CancelledError():
            assert request.way == "leaves"
        case TimeoutError():
            assert request.way == "times_out"
        case BackPressureError():
            assert any(shapes[node].max_queued_requests > 0 for node in reachable(shapes))
        case Failed():
            wanted = expected(shapes, request.ask)
            assert not isinstance(wanted, Answer)
            assert outcome.node in wanted
        case _:
            assert outcome == expected(shapes, request.ask)


async def nothing_stays(shapes: list[Shape]) -> None:
    """Return when no handler runs and every slot of every replica was free at the same moment."""
    what = "no handler running"
    await wait_until(lambda: not any(each.here.inside for each in LIVING), within_s=END_WITHIN_S, what=what)
    for node in reachable(shapes):
        slots = shapes[node].num_replicas * shapes[node].max_ongoing_requests
        handle = serve.get_deployment_handle(f"node{node}", "default")
        meeting = Meeting(f"at node{node}", slots)
        async with asyncio.timeout(END_WITHIN_S):
            await asyncio.gather(*[_take_part(handle, meeting) for _ in range(slots)])


@settings(max_examples=40)
@given(graphs(), REQUESTS)
def test_every_request_gets_the_right_answer_and_nothing_stays(shapes: list[Shape], requests: list[Request]) -> None:
    async def ask_all(handle: Any) -> list[Any]:
        async with asyncio.timeout(END_WITHIN_S):
            outcomes = await asyncio.gather(*[outcome_of(handle, each) for each in requests])
        await nothing_stays(shapes)
        return outcomes

    LIVING.clear()
    MEETINGS.clear()
    with local_app(application(shapes)) as ingress:
        outcomes = asyncio.run(ask_all(ingress.options(method_name=method_of(shapes[0]))))
    for request, outcome in zip(requests, outcomes, strict=True):
        check(shapes, request, outcome)


async def _answer(response: Any) -> Any:
    return await response


async def _take_part(handle: Any, meeting: Meeting) -> None:
    async def came() -> bool:
        try:
            await handle.meet.remote(meeting)
        except BackPressureError:
            # A slot may become free a moment after its handler has ended, and this one was too much for the queue.
            return False
        return True

    await wait_until(came, within_s=END_WITHIN_S, what="a place in the queue")
