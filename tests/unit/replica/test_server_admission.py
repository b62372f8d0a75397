"""Who is let in, in which order, and how a replica drains; each test is a caller that sends frames."""

import asyncio

from salver.transport.wire import (
    HELD,
    PASS,
    REJECT,
    RESULT,
    ROOM,
    WAIT,
)
from tests.unit.replica.callers import Gate, Start, settle


async def test_above_the_limit_a_request_is_rejected_and_its_caller_called_back(start: Start) -> None:
    rig = await start(Gate, limit=1)
    gate = rig.server.user_code.instance
    first, second = await rig.caller(), await rig.caller()
    first.call(1)
    await settle()
    second.call(1)
    rejected = await second.next()
    assert (rejected.kind, rejected.stream, rejected.load) == (REJECT, 1, 1)
    gate.open.set()
    assert await first.result() == "done"
    assert (await second.next())[:2] == (ROOM, 0)
    first.call(2)
    assert (await first.next()).kind == REJECT
    second.call(2, flags=HELD)
    assert await second.result() == "done"
    assert (await first.next()).kind == ROOM


async def test_a_slot_that_is_passed_on_goes_to_the_next(start: Start) -> None:
    rig = await start(Gate, limit=1)
    first, second, third = [await rig.caller() for _ in range(3)]
    first.call(1)
    await settle()
    second.call(1)
    third.call(1)
    assert (await second.next()).kind == (await third.next()).kind == REJECT
    rig.server.user_code.instance.open.set()
    assert (await second.next()).kind == ROOM
    second.connection.send(PASS, 0)
    assert (await third.next()).kind == ROOM


async def test_a_caller_with_more_stands_in_line_again(start: Start) -> None:
    rig = await start(Gate, limit=1)
    first = await rig.caller()
    first.call(1)
    await settle()
    first.connection.send(WAIT, 0)
    assert (await first.next())[:2] == (REJECT, 0), "it is in line, and knows it"
    rig.server.user_code.instance.open.set()
    kinds = [(await first.next()).kind for _ in range(2)]
    assert sorted(kinds) == [RESULT, ROOM]


async def test_who_asks_while_there_is_room_is_called_back_at_once(start: Start) -> None:
    rig = await start(Gate, limit=1)
    caller = await rig.caller()
    caller.send(WAIT, 0)
    await settle()
    assert [frame[:2] for frame in caller.received()] == [(ROOM, 0)]


async def test_a_caller_that_is_gone_gives_its_held_slot_to_the_next(start: Start) -> None:
    rig = await start(Gate, limit=1)
    first, second, third = [await rig.caller() for _ in range(3)]
    first.call(1)
    await settle()
    second.call(1)
    third.call(1)
    await settle()
    rig.server.user_code.instance.open.set()
    await settle()
    second.connection.abort()
    assert (await third.next()).kind == REJECT
    assert (await third.next()).kind == ROOM


async def test_the_limit_can_be_changed(start: Start) -> None:
    rig = await start(Gate, limit=1)
    caller = await rig.caller()
    caller.call(1)
    await settle()
    caller.call(2)
    assert (await caller.next()).kind == REJECT
    rig.server.change_limit(2)
    assert (await caller.next()).kind == ROOM


async def test_of_a_burst_in_one_tick_no_more_than_the_limit_are_let_in(start: Start) -> None:
    rig = await start(Gate, limit=3)
    callers = [await rig.caller() for _ in range(3)]
    for stream in range(1, 5):
        for each in callers:
            each.call(stream)
    await settle()
    assert rig.server.user_code.instance.entered == rig.server.admission.running == 3
    frames = [frame for each in callers for frame in each.received()]
    assert [(frame.kind, frame.load) for frame in frames] == [(REJECT, 3)] * 9


async def test_each_answer_tells_how_many_requests_are_left(start: Start) -> None:
    class Doors:
        def __init__(self) -> None:
            self.doors = {number: asyncio.Event() for number in (1, 2, 3)}

        async def wait(self, number: int) -> None:
            await self.doors[number].wait()
            if number == 2:
                raise ValueError("no")

    rig = await start(Doors, limit=3)
    caller = await rig.caller()
    for number in (1, 2, 3):
        caller.call(number, "wait", number)
    await settle()
    loads_told = []
    for door in rig.server.user_code.instance.doors.values():
        door.set()
        loads_told.append((await caller.next()).load)
    assert loads_told == [2, 1, 0]


async def test_a_request_that_claims_a_slot_nobody_holds_for_it_is_like_any_other(start: Start) -> None:
    rig = await start(Gate, limit=1)
    caller = await rig.caller()
    caller.call(1, flags=HELD)
    caller.call(2, flags=HELD)
    assert (await caller.next())[:2] == (REJECT, 2)
    assert rig.server.admission.running == 1


async def test_draining_waits_for_the_last_request_and_the_last_caller(start: Start) -> None:
    rig = await start(Gate)
    caller, other = await rig.caller(), await rig.caller()
    caller.call(1)
    await settle()
    draining = asyncio.get_running_loop().create_task(rig.server.drain())
    await settle()
    other.call(1)
    assert (await other.next()).kind == REJECT
    other.connection.close()
    rig.server.user_code.instance.open.set()
    assert await caller.result() == "done"
    await settle()
    assert not draining.done()
    caller.connection.close()
    await asyncio.wait_for(draining, timeout=5)


async def test_draining_an_idle_replica_without_callers_takes_no_time(start: Start) -> None:
    await asyncio.wait_for((await start(Gate)).server.drain(), timeout=5)
