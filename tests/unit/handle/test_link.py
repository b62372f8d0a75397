"""A process's line to the controller."""

import asyncio
from functools import partial
from typing import Any

import pytest

from salver.handle.link import ControllerLink, redial_delay_s
from salver.lib.tasks import Tasks
from salver.schema.errors import (
    Disconnected,
    ProtocolError,
    SalverError,
)
from salver.schema.messages import Done, GetStatus, Message, Snapshot, StatusReport
from salver.schema.status import ServeStatus
from salver.schema.topics import Status
from salver.transport.memory import MemoryNetwork
from salver.transport.peer import Peer
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


async def test_a_line_that_breaks_is_opened_again_and_subscribes_again_and_counts_anew(world: World) -> None:
    seen: list[Any] = []
    world.link.subscribe("status", seen.append)
    world.controller.publish("status", Status(ServeStatus()), version=9)
    await wait_until(lambda: seen, within_s=5, what="the value")
    world.controller.topics["status"] = Snapshot("status", 1, Status(ServeStatus(target_capacity=3.0)))
    world.network.ends[0].cut()
    await wait_until(lambda: len(seen) == 2, within_s=5, what="the value of the new controller")


async def test_a_process_that_answers_nothing_says_so(world: World) -> None:
    with pytest.raises(SalverError, match="this process does not answer GetStatus"):
        await world.controller.peers[0].ask(GetStatus(), Done)


async def test_each_new_controller_is_told_unless_the_line_was_closed() -> None:
    network, back, tasks = MemoryNetwork(), list[str](), Tasks(lambda _name, _error: None)
    first = await network.listen("controller", Controller(tasks).accept)
    links = []
    for name in ("breaks", "closes"):
        link = ControllerLink(role="x", name=name, tasks=tasks, on_back=partial(back.append, name), dial=network.dial)
        await link.connect("controller")
        links.append(link)
    first.close()
    network.ends[0].cut()
    links[1].close()
    await wait_until(lambda: len(tasks), within_s=5, what="a try")
    assert back == []
    await network.listen("controller", Controller(tasks).accept)
    await wait_until(lambda: back, within_s=5, what="another line")
    await wait_until(lambda: not len(tasks), within_s=5, what="an end of all tries")
    assert back == ["breaks"]


async def test_a_question_that_a_controller_left_open_is_asked_of_the_next() -> None:
    network, tasks = MemoryNetwork(), Tasks(lambda _name, _error: None)
    silent, helpful = Silent(tasks), Controller(tasks)
    listener = await network.listen("controller", silent.accept)
    link = ControllerLink(role="x", name="x", tasks=tasks, dial=network.dial)
    await link.connect("controller")
    asking = asyncio.create_task(link.ask(GetStatus(), StatusReport))
    await asyncio.wait_for(silent.asked.wait(), timeout=5)
    listener.close()
    network.ends[0].cut()
    await network.listen("controller", helpful.accept)
    assert isinstance(await asyncio.wait_for(asking, timeout=5), StatusReport)
    link.close()
    with pytest.raises(Disconnected):
        await link.ask(GetStatus(), StatusReport)
    await tasks.close()


class Silent(Controller):
    """A controller that answers nothing."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks)
        self.asked = asyncio.Event()

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_what_is_no_snapshot_ends_the_line() -> None:
    network, tasks = MemoryNetwork(), Tasks(lambda _name, _error: None)
    controller = Controller(tasks)
    listener = await network.listen("controller", controller.accept)
    link = ControllerLink(role="x", name="x", tasks=tasks, dial=network.dial)
    await link.connect("controller")
    listener.close()
    controller.peers[0].tell(GetStatus())
    protocol = network.ends[0]._protocol
    await wait_until(lambda: protocol._error, within_s=5, what="an end of the line")
    assert isinstance(protocol._error, ProtocolError)
    link.close()
    await tasks.close()


@pytest.mark.parametrize(("attempt", "longest_s"), [(0, 0.05), (1, 0.1), (5, 1.6), (6, 2.0), (1000, 2.0)])
def test_attempts_to_open_the_line_again_come_more_and_more_slowly(attempt: int, longest_s: float) -> None:
    assert redial_delay_s(attempt, 0.0) == pytest.approx(longest_s)
    assert redial_delay_s(attempt, 1.0) == pytest.approx(longest_s / 2)
