import asyncio

from salver.replica.inbox import Inbox, Message


def body(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": True}


DISCONNECT: Message = {"type": "http.disconnect"}


async def test_messages_come_in_order_and_grant_what_was_taken() -> None:
    granted: list[int] = []
    inbox = Inbox(granted.append)
    inbox.put(body(b"ab"), 2)
    inbox.put(body(b"cde"), 3)
    assert granted == []
    assert (await inbox.receive())["body"] == b"ab"
    assert granted == [2]
    assert (await inbox.receive())["body"] == b"cde"
    assert granted == [2, 3]


async def test_the_end_comes_after_all_else_and_again_and_again() -> None:
    inbox = Inbox(lambda _: None)
    inbox.put(body(b"a"), 1)
    inbox.end(DISCONNECT)
    inbox.put(body(b"late"), 4)
    inbox.end({"type": "another"})
    assert (await inbox.receive())["body"] == b"a"
    assert await inbox.receive() is DISCONNECT
    assert await inbox.receive() is DISCONNECT


async def test_all_who_wait_are_woken_and_one_gets_the_message() -> None:
    inbox = Inbox(lambda _: None)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        tasks = [group.create_task(inbox.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        inbox.put(body(b"only"), 4)
        inbox.end(DISCONNECT)
    types = sorted(task.result()["type"] for task in tasks)
    assert types == ["http.disconnect", "http.disconnect", "http.request"]
