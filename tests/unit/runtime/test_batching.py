"""`@serve.batch`: options, what callers get, and what a handler may do to them."""

import asyncio
import gc
import logging
import pickle
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import cloudpickle
import pytest

import salver as serve
from salver.exceptions import SalverError
from salver.handle.request_context import RequestContext, current_request, enter_request
from salver.lib.tasks import Tasks
from salver.runtime.adaptive_batching import AdaptiveBatching
from salver.runtime.batch_counters import all_batch_counters
from salver.runtime.context import set_max_ongoing_requests, set_replica_tasks
from tests.unit.runtime.virtual_time import run


class Recorder:
    """A class with a batched method, as users write it; remembers its batches."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.batches: list[list[Any]] = []
        self.running = 0
        self.peak = 0

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=1.0)
    async def handle(self, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        self.running += 1
        self.peak = max(self.peak, self.running)
        await asyncio.sleep(self.takes_s)
        self.running -= 1
        return [item * 10 for item in items]


async def gathered(*calls: Awaitable[Any]) -> list[Any]:
    """Return results and exceptions of calls that begin together, in order."""
    return await asyncio.gather(*calls, return_exceptions=True)


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def in_request(work: Coroutine[Any, Any, Any], **about: Any) -> Any:
    """Run something as a request's handler would."""

    async def request() -> Any:
        enter_request(RequestContext(**about))
        return await work

    return await asyncio.create_task(request())


# Options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_batch_size": 0}, ValueError, "max_batch_size must be an integer >= 1, got 0"),
        ({"max_batch_size": 1.5}, TypeError, "max_batch_size must be an integer >= 1, got 1.5"),
        ({"max_batch_size": "a"}, TypeError, "max_batch_size must be an integer >= 1, got 'a'"),
        ({"batch_wait_timeout_s": -1}, ValueError, "batch_wait_timeout_s must be a float >= 0, got -1"),
        ({"batch_wait_timeout_s": "a"}, TypeError, "batch_wait_timeout_s must be a float >= 0, got 'a'"),
        ({"max_concurrent_batches": 0}, TypeError, "max_concurrent_batches must be an integer >= 1, got 0"),
        ({"max_concurrent_batches": 1.0}, TypeError, "max_concurrent_batches must be an integer >= 1, got 1.0"),
        ({"batch_size_fn": 3}, TypeError, "batch_size_fn must be a callable or None, got 3"),
        ({"target_latency_s": 0}, ValueError, "target_latency_s must be a float > 0, got 0"),
        ({"target_latency_s": "a"}, TypeError, "target_latency_s must be a float > 0, got 'a'"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_at_decoration(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        serve.batch(**options)
    assert str(caught.value) == message


def test_a_whole_float_is_a_size_and_an_int_is_a_wait() -> None:
    @serve.batch(max_batch_size=2.0, batch_wait_timeout_s=1)  # type: ignore[call-overload, untyped-decorator]
    async def handle(items: list[int]) -> list[int]:
        return items

    assert handle._get_max_batch_size() == 2
    assert isinstance(handle._get_max_batch_size(), int)
    assert handle._get_batch_wait_timeout_s() == 1


def test_the_defaults_are_ten_items_and_ten_milliseconds() -> None:
    @serve.batch
    async def handle(items: list[int]) -> list[int]:
        return items

    assert (handle._get_max_batch_size(), handle._get_batch_wait_timeout_s()) == (10, 0.01)


def test_bare_on_a_function_that_is_not_async_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^Functions decorated with @serve\.batch must be 'async def'$"):
        serve.batch(lambda items: items)


def test_bare_on_an_async_generator_is_refused_and_says_how() -> None:
    async def stream(items: list[int]) -> Any:
        yield items

    with pytest.raises(
        TypeError, match=r"must be 'async def'; for an asynchronous generator, write `@serve.batch\(\)`"
    ):
        serve.batch(stream)


@pytest.mark.parametrize("decorate", [lambda: serve.batch(3), lambda: serve.batch()(3)])  # type: ignore[call-overload]
def test_what_cannot_be_called_cannot_be_decorated(decorate: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"^@serve.batch can only be used to decorate functions or methods\.$"):
        decorate()


def test_with_parentheses_a_plain_function_fails_at_each_call() -> None:
    @serve.batch()
    def handle(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(TypeError, match="must be 'async def'"):
                await handle(1)

    run(main())


def test_setters_check_what_they_are_given() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="max_batch_size must be an integer >= 1, got 0"):
        recorder.handle.set_max_batch_size(0)
    with pytest.raises(TypeError, match="batch_wait_timeout_s must be a float >= 0, got 'a'"):
        recorder.handle.set_batch_wait_timeout_s("a")  # type: ignore[arg-type]
    assert recorder.handle._get_max_batch_size() == 3
    assert recorder.handle._get_batch_wait_timeout_s() == 1.0


def test_a_setter_on_an_instance_is_for_that_instance_and_one_on_the_class_for_those_that_follow() -> None:
    one, other = Recorder(), Recorder()
    one.handle.set_max_batch_size(7)
    assert (one.handle._get_max_batch_size(), other.handle._get_max_batch_size()) == (7, 3)
    Recorder.handle.set_max_batch_size(5)
    try:
        assert (one.handle._get_max_batch_size(), Recorder().handle._get_max_batch_size()) == (7, 5)
    finally:
        Recorder.handle.set_max_batch_size(3)


# Callers, results


def test_callers_pass_single_items_and_the_handler_gets_lists() -> None:
    recorder = Recorder()
    assert run(gathered(recorder.handle(1), recorder.handle(2), recorder.handle(items=3))) == [10, 20, 30]
    assert recorder.batches == [[1, 2, 3]]


def test_element_i_goes_to_caller_i_and_any_iterable_with_a_length_will_do() -> None:
    @serve.batch(max_batch_size=3)
    async def handle(items: list[str]) -> Any:
        return dict.fromkeys(items)

    assert run(gathered(handle("a"), handle("b"), handle("c"))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            [1],
            "Batched function doesn't preserve batch size. "
            "The input list has length 2 but the returned list has length 1.",
        ),
        (
            [1, 2, 3],
            "Batched function doesn't preserve batch size. "
            "The input list has length 2 but the returned list has length 3.",
        ),
        (None, "Batched function returned NoneType; expected a list with one element for each of the 2 items"),
        (iter([1, 2]), "Batched function returned list_iterator; expected a list with one element for each of the 2"),
    ],
)
def test_a_result_of_another_length_fails_all_callers_and_nobody_else(result: Any, message: str) -> None:
    results = [result, ["fine"]]

    @serve.batch(max_batch_size=2)
    async def handle(items: list[int]) -> Any:
        return results.pop(0)

    async def main() -> None:
        for error in await gathered(handle(1), handle(2)):
            assert isinstance(error, SalverError)
            assert str(error).startswith(message)
        assert await handle(3) == "fine"

    run(main())


def test_an_exception_of_the_handler_is_the_same_object_for_every_caller_of_the_batch() -> None:
    boom = ValueError("boom")

    @serve.batch(max_batch_size=2)
    async def handle(items: list[int]) -> list[int]:
        if 13 in items:
            raise boom
        return items

    async def main() -> None:
        assert await gathered(handle(13), handle(1), handle(2), handle(3)) == [boom, boom, 2, 3]

    run(main())


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_no_exception_of_a_handler_ends_more_than_its_batch(error: type[BaseException]) -> None:
    @serve.batch(max_batch_size=2)
    async def handle(items: list[int]) -> list[int]:
        if 13 in items:
            raise error
        return items

    async def main() -> None:
        failed = await gathered(handle(13), handle(1))
        assert [type(each) for each in failed] in ([SalverError] * 2, [RuntimeError] * 2)
        assert await gathered(handle(2), handle(3)) == [2, 3]

    run(main())


def test_a_handler_that_cancels_itself_fails_its_batch_only() -> None:
    @serve.batch(max_batch_size=1)
    async def handle(items: list[int]) -> list[int]:
        if items == [13]:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
        return items

    async def main() -> None:
        with pytest.raises(SalverError, match="its handler raised CancelledError"):
            await handle(13)
        assert await handle(1) == 1

    run(main())


def test_an_error_in_what_adapts_the_limits_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ArithmeticError("a defect")

    monkeypatch.setattr(AdaptiveBatching, "batch_ended", fail)
    errors: list[Any] = []

    @serve.batch(max_batch_size=2, target_latency_s=1.0)
    async def handle(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
        assert await gathered(*[handle(number) for number in range(5)]) == list(range(5))

    run(main())
    assert {type(error) for error in errors} == {ArithmeticError}


def test_parameters_that_are_left_out_are_lists_of_their_defaults() -> None:
    @serve.batch(max_batch_size=2)
    async def handle(items: list[int], scale: Any = 2, *, shift: Any = 1) -> list[Any]:
        return list(zip(items, scale, shift, strict=True))

    async def main() -> None:
        assert await gathered(handle(1), handle(2)) == [(1, 2, 1), (2, 2, 1)]
        assert await gathered(handle(1, 5), handle(items=2, scale=6)) == [(1, 5, 1), (2, 6, 1)]
        assert await gathered(handle(1, shift=9), handle(2, shift=8)) == [(1, 2, 9), (2, 2, 8)]

    run(main())


def test_an_item_with_other_arguments_starts_its_own_batch() -> None:
    seen: list[Any] = []

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.5)
    async def handle(items: list[int], scale: Any = 2) -> list[Any]:
        seen.append((items, scale))
        return [item * factor for item, factor in zip(items, scale, strict=True)]

    assert run(gathered(handle(1), handle(2, 5), handle(3), handle(4, 6))) == [2, 10, 6, 24]
    assert seen == [([1, 3], [2, 2]), ([2, 4], [5, 6])]


def test_arguments_that_the_handler_does_not_take_fail_that_caller_only() -> None:
    recorder = Recorder()

    async def main() -> None:
        bad, good = await gathered(recorder.handle(1, 2), recorder.handle(1))  # type: ignore[call-overload]
        assert isinstance(bad, TypeError)
        assert good == 10

    run(main())


def test_handlers_with_any_arguments_get_lists_of_them() -> None:
    @serve.batch(max_batch_size=2)
    async def handle(*items: Any, **named: Any) -> list[Any]:
        return [(items, named)] * 2

    expected = (([1, 2], ["a", "b"]), {"x": [3, 4]})
    assert run(gathered(handle(1, "a", x=3), handle(2, "b", x=4))) == [expected, expected]


def test_calls_are_coroutines_so_they_can_become_tasks() -> None:
    recorder = Recorder()

    async def main() -> None:
        task = asyncio.create_task(recorder.handle(4))
        assert await asyncio.wait_for(task, 10) == 40

    run(main())


def test_functions_have_batches_too() -> None:
    @serve.batch(max_batch_size=2)
    async def double(items: list[int]) -> list[int]:
        assert len(items) == 2
        return [2 * item for item in items]

    assert run(gathered(double(1), double(2))) == [2, 4]
    assert double.__name__ == "double"


def test_the_class_s_attribute_can_be_called_with_the_instance() -> None:
    recorder = Recorder()
    assert run(gathered(Recorder.handle(recorder, 1), recorder.handle(2))) == [10, 20]  # type: ignore[call-overload]
    assert recorder.batches == [[1, 2]]


# When a batch runs


def test_a_full_batch_does_not_wait() -> None:
    recorder = Recorder()

    async def main() -> None:
        await gathered(*[recorder.handle(number) for number in range(3)])
        assert now() == 0

    run(main())


def test_a_batch_that_is_not_full_runs_when_its_first_item_has_waited() -> None:
    recorder = Recorder()

    async def main() -> None:
        first = asyncio.create_task(recorder.handle(1))
        await asyncio.sleep(0.6)
        second = asyncio.create_task(recorder.handle(2))
        await gathered(first, second)
        assert now() == pytest.approx(1.0)

    run(main())
    assert recorder.batches == [[1, 2]]


def test_without_a_wait_what_is_queued_now_is_the_batch() -> None:
    recorder = Recorder()
    recorder.handle.set_batch_wait_timeout_s(0)

    async def main() -> None:
        await gathered(recorder.handle(1), recorder.handle(2))
        assert now() == 0

    run(main())
    assert recorder.batches == [[1, 2]]


def test_new_settings_hold_from_the_next_batch_on() -> None:
    recorder = Recorder()

    async def main() -> None:
        calls = [asyncio.create_task(recorder.handle(number)) for number in (1, 2)]
        await asyncio.sleep(0.1)
        recorder.handle.set_max_batch_size(2)
        recorder.handle.set_batch_wait_timeout_s(5)
        calls += [asyncio.create_task(recorder.handle(number)) for number in (3, 4, 5)]
        await gathered(*calls)

    run(main())
    assert recorder.batches == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_handlers_run_at_once_than_allowed_and_items_gather_meanwhile(most: int) -> None:
    class Model(Recorder):
        @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.0, max_concurrent_batches=most)
        async def handle(self, items: list[Any]) -> list[Any]:
            return await Recorder.handle._function(self, items)  # type: ignore[no-any-return]

    model = Model(takes_s=1.0)
    assert run(gathered(*[model.handle(number) for number in range(12)])) == [10 * number for number in range(12)]
    assert model.peak == most
    assert [len(batch) for batch in model.batches] == [2] * 6


def test_what_comes_while_all_permits_are_taken_joins_the_batch_that_waits() -> None:
    recorder = Recorder(takes_s=1.0)
    recorder.handle.set_batch_wait_timeout_s(0)

    async def main() -> None:
        calls = []
        for number in range(4):
            calls.append(asyncio.create_task(recorder.handle(number)))
            await asyncio.sleep(0.1)
        await gathered(*calls)

    run(main())
    assert recorder.batches == [[0], [1, 2, 3]]


def test_batches_are_first_in_first_out() -> None:
    recorder = Recorder(takes_s=0.1)
    run(gathered(*[recorder.handle(number) for number in range(10)]))
    assert [item for batch in recorder.batches for item in batch] == list(range(10))


def test_a_size_function_limits_batches_and_fails_only_items_that_are_too_large() -> None:
    batches: list[list[str]] = []

    @serve.batch(max_batch_size=6, batch_wait_timeout_s=0.1, batch_size_fn=lambda texts: sum(map(len, texts)))
    async def handle(texts: list[str]) -> list[int]:
        batches.append(texts)
        return [len(text) for text in texts]

    async def main() -> None:
        answers = await gathered(*[handle(text) for text in ("aaa", "bbbb", "c" * 7, "dd", "e")])
        too_large = answers.pop(2)
        assert answers == [3, 4, 2, 1]
        assert isinstance(too_large, RuntimeError)
        assert str(too_large).startswith("Size of item is greater than max_batch_size. ")

    run(main())
    assert batches == [["aaa"], ["bbbb", "dd"], ["e"]]


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError, StopIteration])
def test_an_item_that_breaks_the_size_function_fails_alone(error: type[BaseException]) -> None:
    def size(items: list[str]) -> int:
        if "poison" in items:
            raise error
        return len(items)

    @serve.batch(max_batch_size=2, batch_size_fn=size)
    async def handle(items: list[str]) -> list[str]:
        return items

    async def main() -> None:
        answers = await gathered(handle("a"), handle("poison"), handle("b"))
        assert isinstance(answers.pop(1), ValueError if error is ValueError else SalverError)
        assert answers == ["a", "b"]
        assert await gathered(handle("c"), handle("d")) == ["c", "d"]

    run(main())


# Callers that leave


def test_cancelled_callers_are_removed_before_the_handler_runs() -> None:
    recorder = Recorder()

    async def main() -> None:
        calls = [asyncio.create_task(recorder.handle(number)) for number in (1, 2)]
        await asyncio.sleep(0.1)
        calls[0].cancel()
        answers = await gathered(*calls)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1] == 20

    run(main())
    assert recorder.batches == [[2]]


def test_a_batch_of_cancelled_callers_only_is_never_run() -> None:
    recorder = Recorder()

    async def main() -> None:
        call = asyncio.create_task(recorder.handle(1))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.sleep(5)
        assert recorder.batches == []
        assert await recorder.handle(2) == 20

    run(main())


def test_a_batch_that_runs_goes_on_when_its_callers_leave() -> None:
    recorder = Recorder(takes_s=1.0)
    recorder.handle.set_max_batch_size(1)

    async def main() -> None:
        call = asyncio.create_task(recorder.handle(1))
        await asyncio.sleep(0.1)
        call.cancel()
        assert await recorder.handle(2) == 20
        assert now() == pytest.approx(2.0)

    run(main())
    assert recorder.batches == [[1], [2]]
    assert recorder.running == 0


def test_a_replica_that_stops_ends_its_batches_and_tells_their_callers() -> None:
    recorder = Recorder(takes_s=60)
    recorder.handle.set_max_batch_size(1)

    async def main() -> None:
        tasks = Tasks(on_error=lambda name, error: None)
        set_replica_tasks(tasks, asyncio.get_running_loop())
        call = asyncio.create_task(recorder.handle(1))
        await asyncio.sleep(0.1)
        assert len(tasks) == 1
        await tasks.close()
        with pytest.raises(SalverError, match="CancelledError"):
            await call

    try:
        run(main())
    finally:
        set_replica_tasks(None, None)


# Requests, models, instances, event loops


def test_models_never_share_a_batch_and_run_side_by_side() -> None:
    seen: list[tuple[str, list[int]]] = []

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.5)
    async def handle(items: list[int]) -> list[str]:
        model = current_request().multiplexed_model_id
        seen.append((model, items))
        await asyncio.sleep(1)
        return [f"{model}{item}" for item in items]

    async def main() -> None:
        calls = [in_request(handle(number), multiplexed_model_id="ab"[number % 2]) for number in range(4)]
        assert await gathered(*calls) == ["a0", "b1", "a2", "b3"]
        assert now() == pytest.approx(1.5)

    run(main())
    assert seen == [("a", [0, 2]), ("b", [1, 3])]


def test_thousands_of_models_leave_nothing_behind() -> None:
    @serve.batch(max_batch_size=1)
    async def handle(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        for number in range(1000):
            await in_request(handle(number), multiplexed_model_id=str(number))
        assert handle._batches is not None
        assert len(handle._batches._loops) <= 32

    run(main())


def test_a_handler_works_on_no_single_request_but_knows_those_of_its_batch() -> None:
    @serve.batch(max_batch_size=2)
    async def handle(items: list[int]) -> list[RequestContext]:
        return [current_request()] * 2

    async def main() -> None:
        first = in_request(handle(1), request_id="one", app_name="app", route="/r", deadline=5.0)
        context, same = await gathered(first, in_request(handle(2), request_id="two", deadline=7.0))
        assert context is same
        assert (context.request_id, context.batch_request_ids) == ("", ("one", "two"))
        assert (context.app_name, context.route, context.deadline) == ("app", "/r", 7.0)
        assert context.is_over, "what the handler leaves behind is not the batch's any more"
        endless, _ = await gathered(in_request(handle(1), deadline=5.0), in_request(handle(2)))
        assert endless.deadline is None

    run(main())


def test_an_instance_has_batches_of_its_own_and_is_not_kept_by_them() -> None:
    one, other = Recorder(), Recorder()
    run(gathered(one.handle(1), other.handle(2)))
    assert (one.batches, other.batches) == ([[1]], [[2]])
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    assert len(Recorder.handle._by_instance._batches) == 1


def test_instances_need_no_hash_and_no_weak_references() -> None:
    class Unhashable:
        __slots__ = ("sizes",)
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        @serve.batch(max_batch_size=2)
        async def handle(self, items: list[int]) -> list[int]:
            return [len(items) for _ in items]

    one, other = Unhashable(), Unhashable()
    assert run(gathered(one.handle(1), one.handle(2), other.handle(1))) == [2, 2, 1]


def test_another_event_loop_starts_afresh() -> None:
    recorder = Recorder()

    async def abandon() -> None:
        call = asyncio.create_task(recorder.handle("left behind"))
        await asyncio.sleep(0.1)
        assert await recorder.handle._is_batching_task_alive()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call

    for number in range(3):
        run(abandon())
        assert run(gathered(recorder.handle(number))) == [10 * number]
    assert asyncio.run(recorder.handle._is_batching_task_alive()) is False


def test_subclasses_may_call_the_batched_method_they_override() -> None:
    class Shifted(Recorder):
        async def handle(self, item: int) -> int:  # type: ignore[override]
            return 1 + int(await super().handle(item))

    assert run(gathered(Shifted().handle(4))) == [41]


def test_a_batched_function_can_be_pickled_with_its_settings() -> None:
    restored = cloudpickle.loads(cloudpickle.dumps(Recorder))
    recorder = restored()
    assert recorder.handle._get_max_batch_size() == 3
    assert run(gathered(recorder.handle(2), recorder.handle(3))) == [20, 30]
    assert pickle.loads(cloudpickle.dumps(_local_function()))._get_max_batch_size() == 4


def _local_function() -> Any:
    @serve.batch(max_batch_size=4)
    async def handle(items: list[int]) -> list[int]:
        return items

    return handle


# Looks inside


def test_it_can_be_asked_what_runs() -> None:
    recorder = Recorder(takes_s=1.0)

    async def main() -> None:
        assert await recorder.handle._get_handling_task_stack() is None
        assert not await recorder.handle._is_batching_task_alive()
        calls = [asyncio.create_task(recorder.handle(number)) for number in range(3)]
        await asyncio.sleep(0.5)
        assert recorder.handle._get_curr_iteration_start_times() == [0.0]
        stack = await recorder.handle._get_handling_task_stack()
        assert stack is not None
        assert "await asyncio.sleep(self.takes_s)" in stack
        await gathered(*calls)
        assert recorder.handle._get_curr_iteration_start_times() == []

    run(main())


def test_a_caller_who_leaves_and_an_item_that_is_refused_thereby_count_once_each() -> None:
    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.0, batch_size_fn=sum)
    async def handle(items: list[int]) -> list[int]:
        await asyncio.sleep(1)
        return items

    async def main() -> None:
        running = asyncio.ensure_future(handle(2))
        await asyncio.sleep(0.5)
        # Of those that wait the first two fill a batch, so the third is measured only when one of them has left.
        calls = [asyncio.ensure_future(handle(size)) for size in (1, 1, 3)]
        await asyncio.sleep(0.1)
        calls[0].cancel()
        with pytest.raises(RuntimeError, match="Size of item is greater"):
            await calls[2]
        assert [await running, await calls[1]] == [2, 1]
        counters = handle.counters
        assert counters is not None
        assert counters.batch_queue_length == 0

    run(main())


def test_counters_tell_sizes_waits_and_times() -> None:
    recorder = Recorder(takes_s=0.5)

    async def main() -> None:
        calls = [asyncio.create_task(recorder.handle(number)) for number in range(5)]
        await asyncio.sleep(0.1)
        counters = recorder.handle.counters
        assert counters is not None
        assert counters.batch_queue_length == 2
        calls[4].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert counters.batch_queue_length == 1
        await gathered(*calls)
        assert counters in all_batch_counters()
        assert (counters.function_name, counters.batches_processed, counters.batch_queue_length) == ("handle", 2, 0)
        assert counters.actual_batch_size.total == 4
        assert counters.actual_batch_size.counts[:3] == [1, 0, 1]
        assert counters.batch_utilization_percent.total == pytest.approx(100 + 100 / 3)
        assert counters.batch_execution_time_ms.total == pytest.approx(1000)
        assert counters.batch_wait_time_ms.total == pytest.approx(1000)

    run(main())


@pytest.fixture
def limit() -> Iterator[None]:
    set_max_ongoing_requests(5)
    yield
    set_max_ongoing_requests(None)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize(("size", "concurrent", "warnings"), [(5, 1, 0), (6, 1, 1), (3, 2, 1)])
def test_batches_that_can_never_be_full_are_warned_of_once(
    size: int, concurrent: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    @serve.batch(max_batch_size=size, max_concurrent_batches=concurrent)
    async def handle(items: list[int]) -> list[int]:
        return items

    with caplog.at_level(logging.WARNING, "salver"):
        run(gathered(handle(1), handle(2)))
        run(gathered(handle(3)))
    assert len([each for each in caplog.records if "max_ongoing_requests" in each.getMessage()]) == warnings
