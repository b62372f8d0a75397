"""Whatever is called, fails or leaves: each caller gets one answer, its own, and batches keep their promises."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import salver as serve
from salver.exceptions import SalverError
from salver.handle.request_context import RequestContext, current_request, enter_request
from tests.unit.runtime.virtual_time import run

POISON = 13
LONGEST_S = 1000.0


@dataclass(frozen=True)
class Ask:
    """One call.

    Attributes:
        size: Its item's size, where there is a size function, which `POISON` breaks.
        leaves_after_s: When its caller is cancelled; None for never.
    """

    arrives_s: float
    size: int
    model: str
    scale: int | None
    leaves_after_s: float | None


@dataclass(frozen=True)
class Options:
    """Those of the decorator, and what the handler does."""

    max_batch_size: int
    batch_wait_timeout_s: float
    max_concurrent_batches: int
    has_sizes: bool
    takes_s: float
    failing_batches: frozenset[int]
    short_batches: frozenset[int]


@dataclass
class Seen:
    """What the handler saw."""

    batches: list[tuple[str, list[tuple[int, int]], Any]] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    peak: int = 0


asks = st.builds(
    Ask,
    arrives_s=st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.5, 1.0]),
    size=st.integers(1, 14),
    model=st.sampled_from(["", "", "a", "b"]),
    scale=st.sampled_from([None, None, 3]),
    leaves_after_s=st.sampled_from([None, None, None, 0.0, 0.005, 0.3]),
)
options = st.builds(
    Options,
    max_batch_size=st.integers(1, 12),
    batch_wait_timeout_s=st.sampled_from([0.0, 0.01, 0.4]),
    max_concurrent_batches=st.integers(1, 3),
    has_sizes=st.booleans(),
    takes_s=st.sampled_from([0.0, 0.02, 0.6]),
    failing_batches=st.frozensets(st.integers(0, 10), max_size=2),
    short_batches=st.frozensets(st.integers(0, 10), max_size=2),
)


def _size(items: list[tuple[int, int]]) -> int:
    if any(size == POISON for _, size in items):
        raise ArithmeticError("poison")
    return sum(size for _, size in items)


def _handler(how: Options, seen: Seen) -> Any:
    @serve.batch(
        max_batch_size=how.max_batch_size,
        batch_wait_timeout_s=how.batch_wait_timeout_s,
        max_concurrent_batches=how.max_concurrent_batches,
        batch_size_fn=_size if how.has_sizes else None,
    )
    async def handle(items: list[tuple[int, int]], scale: Any = 1) -> Any:
        model, number = current_request().multiplexed_model_id, len(seen.batches)
        seen.batches.append((model, items, scale))
        seen.running[model] = seen.running.get(model, 0) + 1
        seen.peak = max(seen.peak, seen.running[model])
        await asyncio.sleep(how.takes_s)
        seen.running[model] -= 1
        if number in how.failing_batches:
            raise LookupError("failed")
        answers = [(model, item, factor) for item, factor in zip(items, scale, strict=True)]
        return answers[1:] if number in how.short_batches else answers

    return handle


async def _ask(handle: Any, number: int, ask: Ask) -> Any:
    await asyncio.sleep(ask.arrives_s)

    async def request() -> Any:
        enter_request(RequestContext(multiplexed_model_id=ask.model, request_id=str(number)))
        item = (number, ask.size)
        return await (handle(item) if ask.scale is None else handle(item, ask.scale))

    task = asyncio.create_task(request())
    if ask.leaves_after_s is not None:
        asyncio.get_running_loop().call_later(ask.leaves_after_s, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return "left"
    except Exception as error:  # noqa: BLE001 - the answer is looked at later
        return error


def _check_answer(how: Options, ask: Ask, number: int, answer: Any) -> None:
    if answer == "left":
        assert ask.leaves_after_s is not None
    elif isinstance(answer, ArithmeticError):
        assert how.has_sizes
        assert ask.size == POISON
    elif isinstance(answer, LookupError):
        assert how.failing_batches
    elif isinstance(answer, RuntimeError):
        assert how.has_sizes
        assert ask.size > how.max_batch_size
    elif isinstance(answer, SalverError):
        assert how.short_batches
    else:
        assert answer == (ask.model, (number, ask.size), 1 if ask.scale is None else ask.scale)


def _check_batches(how: Options, all_asks: list[Ask], seen: Seen) -> None:
    assert seen.peak <= how.max_concurrent_batches
    numbers = [number for _, items, _ in seen.batches for number, _ in items]
    assert len(numbers) == len(set(numbers)), "no item is in two batches"
    for model, items, scale in seen.batches:
        asked = [all_asks[number] for number, _ in items]
        assert {ask.model for ask in asked} == {model}
        assert len({ask.scale for ask in asked}) == 1
        assert scale == [1 if ask.scale is None else ask.scale for ask in asked]
        assert items
        assert (_size(items) if how.has_sizes else len(items)) <= how.max_batch_size
    if not how.has_sizes:
        _check_order(all_asks, seen)


def _check_order(all_asks: list[Ask], seen: Seen) -> None:
    """First in, first out, among the items of a model with the same arguments."""
    lanes: dict[Any, list[float]] = {}
    for model, items, _ in seen.batches:
        lane = lanes.setdefault((model, all_asks[items[0][0]].scale), [])
        lane.extend(all_asks[number].arrives_s for number, _ in items)
    assert all(lane == sorted(lane) for lane in lanes.values())


@given(options, st.lists(asks, min_size=1, max_size=30))
def test_each_caller_gets_one_answer_its_own_in_finite_time(how: Options, all_asks: list[Ask]) -> None:
    seen = Seen()

    async def main() -> None:
        handle = _handler(how, seen)
        work = asyncio.gather(*[_ask(handle, number, ask) for number, ask in enumerate(all_asks)])
        answers = await asyncio.wait_for(work, LONGEST_S)
        # Batches whose callers have all left may still run.
        await asyncio.sleep(LONGEST_S)
        for number, (ask, answer) in enumerate(zip(all_asks, answers, strict=True)):
            _check_answer(how, ask, number, answer)
        _check_batches(how, all_asks, seen)
        assert handle.counters.batch_queue_length == 0
        assert handle.counters.batches_processed == len(seen.batches)
        assert await handle._get_handling_task_stack() is None

    run(main())
