"""A process's line to the controller."""

import asyncio
from functools import partial
from typing import Any

import pytest

from salver.handle.link import MAX_DELAY_S, ControllerLink, redial_delay_s
from salver.lib.clock import ManualClock
from salver.lib.tasks import Tasks
from salver.schema.errors import (
    ProtocolError,
    SalverError,
)
from salver.schema.messages import (
    Done,
    GetStatus,
    Snapshot,
    Status,
    StatusReport,
)
from salver.schema.status import ServeStatus
from salver.transport.memory import MemoryNetwork
from tests.unit.handle.worlds import Controller, World
from tests.waiting import wait_until


async def test_each_subscriber_gets_the_value_and_its_changes(world: World) -> None:
    world.controller.publish("status", Status(ServeStatus(target_capacity=1.0)))
    first: list[Any] = []
    second: list[Any] = []
    world.link.subscribe("status", first.append)
    await wait_until(lambda: first, within_s=5, what="the first value")
    world.link.subscribe("status", second.append)
    assert second == first
    world.controller.publish("status", Status(ServeStatus(target_capacity=2.0)))
    await wait_until(lambda: len(first) == len(second) == 2, within_s=5, what="the change")
    assert world.controller.subscribed.count("status") == 1


async def test_an_older_version_is_ignored(world: World) -> None:
    seen: list[Any] = []
    world.link.subscribe("status", seen.append)
    world.controller.publish("status", Status(ServeStatus()), version=5)
    world.controller.publish("status", Status(ServeStatus(target_capacity=1.0)), version=4)
    assert await world.link.ask(GetStatus(), StatusReport) == StatusReport(ServeStatus())
    assert seen == [Status(ServeStatus())]


async def test_who_subscribes_again_gets_the_value_again(world: World) -> None:
    seen: list[Any] = []
    world.controller.publish("status", Status(ServeStatus()))
    world.link.subscribe("status", seen.append)
    world.link.unsubscribe("status", seen.append)
    world.link.subscribe("status", seen.append)
    await wait_until(lambda: seen, within_s=5, what="the value")
    assert world.controller.unsubscribed == ["status"]


async def test_a_line_that_is_opened_again_subscribes_again_and_counts_anew(world: World) -> None:
    seen: list[Any] = []
    world.link.subscribe("status", seen.append)
    world.controller.publish("status", Status(ServeStatus()), version=9)
    await wait_until(lambda: seen, within_s=5, what="the value")
    world.network.ends[0].cut()
    await asyncio.sleep(0)
    world.controller.topics["status"] = Snapshot("status", 1, Status(ServeStatus(target_capacity=3.0)))
    await world.link.connect("controller")
    await wait_until(lambda: len(seen) == 2, within_s=5, what="the value of the new controller")


async def test_a_process_that_answers_nothing_says_so(world: World) -> None:
    with pytest.raises(SalverError, match="this process does not answer GetStatus"):
        await world.controller.peers[0].ask(GetStatus(), Done)


async def test_a_line_that_breaks_is_told_unless_it_was_closed() -> None:
    network, gone, tasks = MemoryNetwork(), list[str](), Tasks(lambda _name, _error: None)
    await network.listen("controller", Controller(tasks).accept)
    links = []
    for name in ("breaks", "closes"):
        told = partial(gone.append, name)
        link = ControllerLink(role="x", name=name, tasks=tasks, on_gone=told, dial=network.dial)
        await link.connect("controller")
        links.append(link)
    network.ends[0].cut()
    links[1].close()
    await wait_until(lambda: gone, within_s=5, what="the news")
    assert gone == ["breaks"]


async def test_what_is_no_snapshot_ends_the_line() -> None:
    network, tasks = MemoryNetwork(), Tasks(lambda _name, _error: None)
    controller, gone = Controller(tasks), asyncio.Event()
    await network.listen("controller", controller.accept)
    link = ControllerLink(role="x", name="x", tasks=tasks, on_gone=gone.set, dial=network.dial)
    await link.connect("controller")
    controller.peers[0].tell(GetStatus())
    await asyncio.wait_for(gone.wait(), timeout=5)
    assert isinstance(network.ends[0]._protocol._error, ProtocolError)


@pytest.mark.parametrize(("attempt", "longest_s"), [(0, 0.05), (1, 0.1), (5, 1.6), (6, 2.0), (1000, 2.0)])
def test_attempts_to_open_the_line_again_come_more_and_more_slowly(attempt: int, longest_s: float) -> None:
    assert redial_delay_s(attempt, 0.0) == pytest.approx(longest_s)
    assert redial_delay_s(attempt, 1.0) == pytest.approx(longest_s / 2)


class Line:
    """A line to a controller that may be away, on a clock that stands still."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.clock = ManualClock()
        self.gone: list[str] = []
        self.failed: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failed.append(f"{name}: {error!r}"))
        self.link = ControllerLink(
            role="x",
            name="x",
            tasks=self.tasks,
            on_gone=lambda: self.gone.append("gone"),
            dial=self.network.dial,
        )
        self.link.keep_open(self.clock)

    async def controller(self) -> Controller:
        """Start a controller."""
        controller = Controller(self.tasks)
        self.listener = await self.network.listen("controller", controller.accept)
        return controller

    async def die(self) -> None:
        """End the controller."""
        self.listener.close()
        self.network.ends[-1].cut()
        await self.until(lambda: self.link._redialling)

    async def until(self, condition: Any) -> None:
        """Wait without time passing."""
        await wait_until(condition, within_s=5, what="the line")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and all that happens then."""
        self.clock.advance(seconds)
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_broken_line_is_opened_again_when_the_controller_is_back_and_subscribes_again() -> None:
    line = Line()
    controller = await line.controller()
    await line.link.connect("controller")
    seen: list[Any] = []
    line.link.subscribe("status", seen.append)
    controller.publish("status", Status(ServeStatus()), version=9)
    await line.until(lambda: seen)
    await line.die()
    for _ in range(20):
        await line.pass_time(MAX_DELAY_S)
    assert (line.gone, len(line.network.ends)) == (["gone"], 1)
    with pytest.raises(SalverError, match="connection to controller is closed"):
        await line.link.ask(GetStatus(), StatusReport)
    line.link.subscribe("routes", seen.append)
    back = await line.controller()
    back.publish("status", Status(ServeStatus(target_capacity=1.0)), version=1)
    await line.pass_time(MAX_DELAY_S)
    await line.until(lambda: len(seen) == 2)
    assert back.subscribed == ["status", "routes"]
    assert await line.link.ask(GetStatus(), StatusReport) == StatusReport(ServeStatus())
    await line.until(lambda: len(line.tasks) == 0)
    assert line.failed == []


async def test_a_line_that_breaks_twice_is_opened_twice() -> None:
    line = Line()
    await line.controller()
    await line.link.connect("controller")
    for number in range(2):
        await line.die()
        await line.controller()
        await line.pass_time(MAX_DELAY_S)
        await line.until(lambda: line.link._peer.connected)
        assert len(line.network.ends) == number + 2


async def test_a_closed_line_stays_closed() -> None:
    line = Line()
    await line.controller()
    await line.link.connect("controller")
    await line.die()
    line.link.close()
    await line.controller()
    await line.pass_time(MAX_DELAY_S)
    await line.until(lambda: len(line.tasks) == 0)
    assert len(line.network.ends) == 1
