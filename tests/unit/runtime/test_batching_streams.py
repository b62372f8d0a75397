"""`@serve.batch` on asynchronous generators."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import salver as serve
from salver.exceptions import SalverError
from tests.unit.runtime.virtual_time import run


class Streamer:
    """Counts up to each item's number."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.batches: list[list[int]] = []
        self.yielded = 0
        self.closed = 0

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=1.0)
    async def count(self, tops: list[int]) -> Any:
        self.batches.append(tops)
        try:
            for number in range(max(tops) + 1):
                await asyncio.sleep(self.step_s)
                self.yielded += 1
                yield [number if number < top else StopIteration for top in tops]
        finally:
            self.closed += 1


async def read(stream: AsyncIterator[Any]) -> list[Any]:
    """Return all parts of a stream; an exception that ends it comes last."""
    parts: list[Any] = []
    try:
        async for part in stream:
            parts.append(part)  # noqa: PERF401 - those that came before an exception count
    except Exception as error:  # noqa: BLE001 - looked at later
        parts.append(error)
    return parts


def test_each_caller_gets_its_own_parts_in_order() -> None:
    @serve.batch(max_batch_size=2)
    async def spell(words: list[str]) -> Any:
        for letters in zip(*words, strict=True):
            yield letters

    async def main() -> None:
        assert list(await asyncio.gather(read(spell("abc")), read(spell("xyz")))) == [["a", "b", "c"], ["x", "y", "z"]]

    run(main())


@pytest.mark.parametrize("end", [StopIteration, StopAsyncIteration, StopIteration(), StopAsyncIteration("done")])
def test_a_caller_s_stream_ends_early_and_later_entries_there_are_ignored(end: Any) -> None:
    @serve.batch(max_batch_size=2)
    async def stream(items: list[int]) -> Any:
        yield ["a", "b"]
        yield [end, "c"]
        await asyncio.sleep(10)
        yield ["ignored", "d"]

    async def main() -> None:
        first = asyncio.create_task(read(stream(1)))
        second = asyncio.create_task(read(stream(2)))
        assert await first == ["a"]
        assert asyncio.get_running_loop().time() < 10, "it does not wait for the others"
        assert await second == ["b", "c", "d"]

    run(main())


def test_all_streams_end_with_the_generator() -> None:
    streamer = Streamer()

    async def main() -> None:
        assert await asyncio.gather(*[read(streamer.count(top)) for top in (1, 3, 2)]) == [[0], [0, 1, 2], [0, 1]]

    run(main())
    assert (streamer.batches, streamer.closed) == ([[1, 3, 2]], 1)


def test_a_row_of_the_wrong_length_fails_those_that_are_not_finished() -> None:
    @serve.batch(max_batch_size=2)
    async def stream(items: list[int]) -> Any:
        yield [StopIteration, "b"]
        yield ["one"]

    async def main() -> None:
        ended, (part, error) = await asyncio.gather(read(stream(1)), read(stream(2)))
        assert (ended, part) == ([], "b")
        assert isinstance(error, SalverError)
        assert "doesn't preserve batch size. The input list has length 2 but the returned list has length 1." in str(
            error
        )

    run(main())


def test_a_row_that_is_no_list_fails_those_that_are_not_finished() -> None:
    @serve.batch(max_batch_size=1)
    async def stream(items: list[int]) -> Any:
        yield None

    async def main() -> None:
        (error,) = await read(stream(1))
        assert "returned NoneType" in str(error)

    run(main())


def test_an_exception_reaches_those_that_are_not_finished_after_their_parts() -> None:
    boom = ValueError("boom")

    @serve.batch(max_batch_size=3)
    async def stream(items: list[int]) -> Any:
        yield [StopIteration, "b", "c"]
        raise boom

    async def main() -> None:
        assert await asyncio.gather(*[read(stream(number)) for number in range(3)]) == [[], ["b", boom], ["c", boom]]
        assert await read(stream(1)) != []

    run(main())


def test_a_reader_that_leaves_does_not_disturb_the_others() -> None:
    streamer = Streamer(step_s=1.0)

    async def leave() -> None:
        async with aclosing(streamer.count(5)) as stream:
            async for _ in stream:
                break

    async def main() -> None:
        _, parts = await asyncio.gather(leave(), read(streamer.count(4)))
        assert parts == [0, 1, 2, 3]

    run(main())


def test_a_generator_that_nobody_reads_any_more_is_closed() -> None:
    streamer = Streamer(step_s=1.0)

    async def main() -> None:
        async with aclosing(streamer.count(1_000_000)) as stream:
            async for _ in stream:
                break
        await asyncio.sleep(5)
        assert (streamer.closed, streamer.yielded) == (1, 2)
        # The permit is free again.
        assert await read(streamer.count(1)) == [0]

    run(main())


def test_a_generator_whose_streams_have_all_ended_runs_to_its_own_end() -> None:
    ended = []

    @serve.batch(max_batch_size=1)
    async def stream(items: list[int]) -> Any:
        yield ["a"]
        yield [StopIteration]
        yield ["ignored"]
        ended.append(items)

    async def main() -> None:
        assert await read(stream(1)) == ["a"]
        await asyncio.sleep(1)

    run(main())
    assert ended == [[1]]


def test_a_cancelled_reader_leaves_the_queue() -> None:
    streamer = Streamer()

    async def main() -> None:
        reader = asyncio.create_task(read(streamer.count(2)))
        await asyncio.sleep(0.1)
        reader.cancel()
        await asyncio.sleep(5)
        assert streamer.batches == []
        assert await read(streamer.count(1)) == [0]

    run(main())


def test_a_generator_is_not_asked_for_more_while_all_of_its_readers_are_behind() -> None:
    streamer = Streamer()
    streamer.count.set_max_batch_size(2)

    async def main() -> None:
        slow, slower = streamer.count(1000), streamer.count(1000)
        assert list(await asyncio.gather(anext(slow), anext(slower))) == [0, 0]
        await asyncio.sleep(5)
        held = streamer.yielded
        assert held < 100
        assert (await anext(slow), await anext(slow)) == (1, 2)
        await asyncio.sleep(5)
        assert held < streamer.yielded < 110
        assert len(await read(slow)) == 997
        assert len(await read(slower)) == 999

    run(main())


def test_it_can_be_read_as_an_async_generator() -> None:
    streamer = Streamer()

    async def main() -> None:
        stream = streamer.count(2)
        assert [await anext(stream), await anext(stream)] == [0, 1]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()

    run(main())
