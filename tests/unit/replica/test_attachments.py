"""What is attached to a call, from the replica's side: early, late, broken, malformed, unwanted."""

import pickle
from typing import Any

import pytest

from salver.handle.errors import body_of
from salver.handle.references import response_of
from salver.transport.codec import dumps
from salver.transport.wire import ATTACHMENT, BROKEN, CALL, AttachmentHead, CallForm, CallHead
from tests.unit.replica.callers import Client, Start, encode, settle


class Reference:
    """Pickles as a response inside of an argument does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return response_of, (self.number,)


async def add(number: int, inside: list[Any]) -> int:
    """Add what is inside."""
    total = number
    for each in inside:
        total += await each
    return total


def call(caller: Client, stream: int = 1) -> None:
    """Call with one attachment as the first argument, and one by reference inside of the second."""
    form = CallForm(num_attached=2, places=[0])
    head = CallHead("__call__", f"request-{stream}", "", "shop", "", form=form)
    caller.send(CALL, stream, encode(head), pickle.dumps(((None, [Reference(0)]), {})))


def attach(caller: Client, number: int, value: Any, stream: int = 1) -> None:
    """Send an attachment."""
    caller.send(ATTACHMENT, stream, encode(AttachmentHead(number)), dumps(value))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("is_late", [False, True])
async def test_attachments_come_in_any_order_at_any_time(start: Start, order: tuple[int, int], is_late: bool) -> None:
    caller = await (await start(add)).caller()
    call(caller)
    for number in order:
        if is_late:
            await settle()
        attach(caller, number, 10 + number)
    assert await caller.result() == 21


@pytest.mark.parametrize("number", [0, 1])
async def test_an_error_that_is_attached_is_raised(start: Start, number: int) -> None:
    caller = await (await start(add)).caller()
    call(caller)
    attach(caller, 1 - number, 1)
    caller.connection.send(ATTACHMENT, 1, encode(AttachmentHead(number)), body_of(KeyError("gone")), BROKEN)
    assert isinstance(await caller.error(), KeyError)


async def test_what_is_attached_twice_or_to_nothing_is_left_alone(start: Start) -> None:
    caller = await (await start(add)).caller()
    attach(caller, 0, 99, stream=7)
    call(caller)
    for number in (0, 0, 5, 1, 1):
        attach(caller, number, 10 + number)
        await settle()
    assert await caller.result() == 21
    attach(caller, 1, 99)
    call(caller, stream=2)
    attach(caller, 0, 1, stream=2)
    attach(caller, 1, 1, stream=2)
    assert await caller.result() == 2


async def test_a_malformed_attachment_ends_the_connection(start: Start) -> None:
    rig = await start(add)
    caller = await rig.caller()
    call(caller)
    caller.send(ATTACHMENT, 1, b"\xc1", b"?")
    await settle()
    assert rig.server.callers == set()
    other = await rig.caller()
    call(other)
    attach(other, 0, 1)
    attach(other, 1, 2)
    assert await other.result() == 3
