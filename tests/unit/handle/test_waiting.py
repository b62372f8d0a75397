"""Requests that wait by priority."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.handle.outgoing import Hints, Outgoing
from salver.handle.waiting import AGEING_S, WaitingByPriority
from salver.schema.errors import BackPressureError
from salver.schema.topics import Replicas
from tests.unit.handle.doubles import Net, Request, outcomes, running


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def request(name: str, urgency: int = 3, order: int = 0) -> Request:
    made = Request(name)
    made.hints = Hints(urgency=urgency)
    made.order = order
    return made


def queue(clock: Clock, *urgencies: int) -> WaitingByPriority:
    return WaitingByPriority((request(f"{number}", each, number) for number, each in enumerate(urgencies)), clock)


def take(waiting: WaitingByPriority) -> Outgoing:
    """Take out the first."""
    first = waiting.first()
    assert first is not None
    waiting.remove(first)
    return first


def taken(waiting: WaitingByPriority) -> list[Outgoing]:
    """Take out all, in turn."""
    return [take(waiting) for _ in range(len(waiting))]


def names(requests: Iterable[object]) -> list[str]:
    return [str(getattr(each, "name", each)) for each in requests]


def test_the_more_urgent_is_served_first_and_a_class_in_order() -> None:
    waiting = queue(Clock(), 3, 7, 0, 3, 0)
    assert names(waiting) == ["2", "4", "0", "3", "1"]
    assert names(taken(waiting)) == ["2", "4", "0", "3", "1"]
    assert waiting.first() is None


def test_a_request_that_waits_grows_more_urgent() -> None:
    clock = Clock()
    waiting = queue(clock, 5)
    clock.at += 2 * AGEING_S - 0.1
    waiting.append(request("overtakes", 3, 1))
    clock.at += 0.2
    waiting.append(request("comes too late", 3, 2))
    assert names(waiting) == ["overtakes", "0", "comes too late"]


def test_a_request_that_waits_again_has_its_old_place() -> None:
    clock = Clock()
    waiting = queue(clock, 3, 3, 3)
    first = take(waiting)
    clock.at += 50 * AGEING_S
    waiting.append(first)
    assert names(waiting) == ["0", "1", "2"]
    late = request("lost by its replica", 3, 1)
    waiting.append(late)
    assert names(waiting) == ["0", "1", "lost by its replica", "2"]


def test_a_more_urgent_newcomer_displaces_the_youngest_of_the_least_urgent() -> None:
    clock = Clock()
    waiting = queue(clock, 5, 3, 5, 0)
    assert waiting.displaced_by(request("less", 6, 9)) is None
    assert waiting.displaced_by(request("as urgent", 5, 9)) is None
    displaced = waiting.displaced_by(request("more", 4, 9))
    assert displaced is not None
    assert displaced.order == 2
    assert names(waiting) == ["3", "1", "0"]


def test_what_was_abandoned_is_not_displaced() -> None:
    waiting = queue(Clock(), 3, 5, 5)
    next(each for each in waiting if each.order == 2).abandoned = True
    displaced = waiting.displaced_by(request("more", 0, 9))
    assert displaced is not None
    assert displaced.order == 1


def test_one_that_has_waited_long_is_not_displaced_by_its_betters() -> None:
    clock = Clock()
    waiting = queue(clock, 7)
    clock.at += 5 * AGEING_S
    assert waiting.displaced_by(request("more", 3, 9)) is None


def test_a_request_is_taken_out_wherever_it_is() -> None:
    waiting = queue(Clock(), 3, 5)
    waiting.remove(next(each for each in waiting if each.order == 1))
    assert names(waiting) == ["0"]


@given(st.lists(st.tuples(st.integers(0, 7), st.floats(0, 10)), max_size=40))
def test_nobody_is_overtaken_by_what_came_much_later(arrivals: list[tuple[int, float]]) -> None:
    clock = Clock()
    waiting = WaitingByPriority((), clock)
    for order, (urgency, pause_s) in enumerate(arrivals):
        clock.at += pause_s
        waiting.append(request(str(order), urgency, order))
    expected = list(waiting)
    served = taken(waiting)
    assert served == expected
    assert sorted(each.order for each in served) == list(range(len(arrivals)))
    for index, later in enumerate(served):
        for earlier in served[:index]:
            if earlier.order > later.order:
                lead = later.hints.urgency - earlier.hints.urgency
                assert lead > 0
                assert earlier.arrived_at - later.arrived_at <= lead * AGEING_S


# In the router


def test_a_router_serves_by_priority_where_the_deployment_says_so() -> None:
    net = Net()
    replica, router = net.replica("a", 1), net.router()
    router.update(net.snapshot(request_priorities=True))
    requests = [request("runs"), request("background", 7), request("default"), request("urgent", 0)]
    for each in requests:
        router.route(each)
    served = []
    net.settle()
    while replica.running:
        served += running(replica)
        replica.finish()
        net.settle()
    assert served == ["runs", "urgent", "default", "background"]


def test_a_router_serves_in_order_by_default() -> None:
    net = Net()
    replica, router = net.replica("a", 1), net.router()
    router.update(net.snapshot())
    for each in (request("runs"), request("background", 7), request("urgent", 0)):
        router.route(each)
    net.settle()
    replica.finish()
    net.settle()
    assert running(replica) == ["background"]


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_what_waits_stays_when_priorities_are_switched(on: bool) -> None:
    net = Net()
    replica, router = net.replica("a", 1), net.router()
    router.update(net.snapshot(request_priorities=not on))
    for each in (request("runs"), request("background", 7), request("urgent", 0)):
        router.route(each)
    router.update(net.snapshot(request_priorities=on))
    assert router.num_waiting == 2
    net.settle()
    replica.finish()
    net.settle()
    assert running(replica) == ["urgent" if on else "background"]


def test_a_full_queue_drops_the_least_urgent_and_tells_it_why() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot(request_priorities=True, max_queued_requests=2))
    requests = [request("runs"), request("first", 5), request("second", 5), request("third", 5), request("urgent", 0)]
    for each in requests:
        router.route(each)
    assert outcomes(requests) == ["waits", "waits", "refused", "refused", "waits"]
    assert isinstance(requests[2].error, BackPressureError)
    assert router.num_waiting == 2
    router.cancel(requests[2])
    assert router.num_waiting == 2
    net.run_out()
    assert outcomes(requests) == ["answered", "answered", "refused", "refused", "answered"]


def test_those_that_came_before_the_limit_was_known_are_refused_from_the_least_urgent_on() -> None:
    net = Net()
    router = net.router()
    requests = [request("background", 7), request("default"), request("urgent", 0)]
    for each in requests:
        router.route(each)
    router.update(Replicas(request_priorities=True, max_queued_requests=1))
    assert outcomes(requests) == ["refused", "refused", "waits"]


def test_many_abandoned_requests_leave_the_queue() -> None:
    net = Net()
    net.replica("a", 1)
    router = net.router()
    router.update(net.snapshot(request_priorities=True))
    requests = [request(str(number), number % 8) for number in range(500)]
    for each in requests:
        router.route(each)
    for each in requests[1:]:
        router.cancel(each)
    assert router.num_waiting == 0
    assert len(router._waiting) < 100
