"""Which items form a batch, and when."""

from typing import Any

import pytest

from salver.runtime.batch_queue import BatchQueue, Limits


class Thing:
    """An item of a size."""

    def __init__(self, first: Any, arrived: float = 0.0, shape: Any = "shape") -> None:
        self.first = first
        self.arrived = arrived
        self.shape = shape
        self.deferred = False

    def __repr__(self) -> str:
        return f"Thing({self.first})"


class Scene:
    """A queue whose limits can be changed, and what it refused."""

    def __init__(self, max_size: int = 3, wait_s: float = 1.0, size_of: Any = None) -> None:
        self.limits = Limits(max_size, wait_s)
        self.refused: list[tuple[Any, BaseException]] = []
        self.queue: BatchQueue[Thing] = BatchQueue(lambda: self.limits, self._refuse, size_of)

    def _refuse(self, thing: Thing, error: BaseException) -> None:
        self.refused.append((thing.first, error))

    def add(self, *firsts: Any, at: float = 0.0, shape: Any = "shape") -> list[Thing]:
        things = [Thing(first, at, shape) for first in firsts]
        for thing in things:
            self.queue.add(thing)
        return things

    def take(self, now: float = 0.0) -> list[Any]:
        return [thing.first for thing in self.queue.take(now)]


def test_an_empty_queue_has_no_batch_and_no_time_to_look_again() -> None:
    scene = Scene()
    assert scene.take(1000) == []
    assert scene.queue.due() is None
    assert len(scene.queue) == 0


def test_a_batch_is_taken_when_it_is_full_and_keeps_the_order() -> None:
    scene = Scene()
    scene.add(1, 2)
    assert scene.take() == []
    scene.add(3, 4)
    assert scene.take() == [1, 2, 3]
    assert scene.take() == []


def test_a_batch_is_taken_when_its_first_item_has_waited_for_long_enough() -> None:
    scene = Scene()
    scene.add(1, at=5.0)
    scene.add(2, at=5.9)
    assert scene.queue.due() == 6.0
    assert scene.take(5.99) == []
    assert scene.take(6.0) == [1, 2]


def test_without_a_wait_a_batch_is_what_is_there() -> None:
    scene = Scene(wait_s=0)
    scene.add(1, 2)
    assert scene.take() == [1, 2]


def test_what_is_left_over_waits_from_its_own_arrival() -> None:
    scene = Scene()
    scene.add(1, 2, 3, at=0.0)
    scene.add(4, at=0.5)
    assert scene.take(0.5) == [1, 2, 3]
    assert scene.queue.due() == 1.5


def test_new_limits_hold_from_the_next_batch_on() -> None:
    scene = Scene()
    scene.add(1)
    scene.limits = Limits(2, 9.0)
    scene.add(2)
    assert scene.take() == []
    assert scene.queue.due() == 1.0
    assert scene.take(1.0) == [1, 2]
    scene.add(3, 4)
    assert scene.take() == [3, 4]


def test_refreshed_limits_hold_at_once() -> None:
    scene = Scene()
    scene.add(1, 2)
    scene.limits = Limits(2, 9.0)
    scene.queue.refresh()
    assert scene.take() == [1, 2]


def test_a_discarded_item_is_in_no_batch_and_the_next_one_sets_the_time() -> None:
    scene = Scene()
    (first,) = scene.add(1, at=0.0)
    scene.add(2, at=0.5)
    scene.queue.discard(first)
    scene.queue.discard(first)
    assert scene.queue.due() == 1.5
    assert scene.take(1.5) == [2]
    assert len(scene.queue) == 0


def test_items_with_other_arguments_have_batches_of_their_own_and_the_oldest_goes_first() -> None:
    scene = Scene()
    scene.add(1, at=0.0, shape="a")
    scene.add(2, at=0.1, shape="b")
    scene.add(3, at=0.2, shape="a")
    assert scene.take(9.0) == [1, 3]
    assert scene.take(9.0) == [2]


def test_arrivals_are_those_of_all_who_wait_up_to_a_number() -> None:
    scene = Scene()
    scene.add(1, at=2.0, shape="a")
    scene.add(2, at=1.0, shape="b")
    scene.add(3, at=3.0, shape="b")
    assert scene.queue.arrivals(10) == [1.0, 2.0, 3.0]
    assert len(scene.queue.arrivals(2)) == 2


def test_a_size_function_limits_the_size_and_not_the_number() -> None:
    scene = Scene(max_size=10, size_of=sum)
    scene.add(4, 6, 5)
    assert scene.take() == [4, 6]
    assert scene.take() == []
    assert scene.take(1.0) == [5]


def test_an_item_that_overflows_goes_behind_the_others() -> None:
    scene = Scene(max_size=10, size_of=sum)
    busy = scene.add(6)
    scene.add(7, 3)
    # 7 does not fit behind 6; it came before 3 and is now after it.
    assert scene.take() == [6]
    assert [thing.first for thing in scene.queue.take(1.0)] in ([7, 3], [7])
    assert busy[0].deferred is False


def test_an_item_is_put_back_once_and_then_leads_the_next_batch() -> None:
    scene = Scene(max_size=10, size_of=sum)
    scene.add(9, 6, 7, 6, 6, 6)
    # 7 goes behind the others when it does not fit behind the first 6, and stays when it does not fit behind the third.
    assert [scene.take(1.0) for _ in range(6)] == [[9], [6], [6], [6], [7], [6]]


def test_an_item_that_is_too_large_alone_fails_alone() -> None:
    scene = Scene(max_size=10, size_of=sum)
    scene.add(4, 11, 5)
    assert scene.take() == []
    assert scene.take(1.0) == [4, 5]
    ((first, error),) = scene.refused
    assert first == 11
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("Size of item is greater than max_batch_size. ")
    assert len(scene.queue) == 0


@pytest.mark.parametrize(
    "size_of",
    [
        pytest.param(lambda items: 1 / 0 if "bad" in items else len(items), id="it raises"),
        pytest.param(lambda items: None if "bad" in items else len(items), id="it returns nothing"),
        pytest.param(lambda items: "long" if "bad" in items else len(items), id="it returns text"),
    ],
)
def test_whatever_a_size_function_does_with_an_item_only_that_one_fails(size_of: Any) -> None:
    scene = Scene(size_of=size_of)
    scene.add("a", "bad", "b", "c")
    assert [first for first, _ in scene.refused] == ["bad"]
    assert scene.take() == ["a", "b", "c"]


def test_a_size_function_that_never_works_fails_each_item_and_leaves_nothing() -> None:
    scene = Scene(size_of=lambda items: 1 / 0)
    scene.add("a", "b")
    assert [first for first, _ in scene.refused] == ["a", "b"]
    assert len(scene.queue) == 0
    assert scene.queue.due() is None


def test_a_place_that_becomes_free_is_used() -> None:
    scene = Scene(max_size=10, size_of=sum)
    large, _ = scene.add(8, 2)
    scene.queue.discard(large)
    scene.add(8)
    assert scene.take() == [2, 8]
