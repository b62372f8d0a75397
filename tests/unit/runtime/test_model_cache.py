"""Which models a replica keeps."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.runtime.model_cache import UNLIMITED, ModelCache


class Request:
    """A request that is over when it is told to be."""

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over


OVER = Request(is_over=True)


def loaded(capacity: int, models: Sequence[str]) -> ModelCache[str]:
    cache: ModelCache[str] = ModelCache(capacity)
    for each in models:
        cache.add(each, f"model {each}")
    return cache


def test_nothing_goes_while_there_is_room() -> None:
    assert loaded(3, "ab").next_to_go() is None


def test_the_model_that_was_not_used_for_longest_goes() -> None:
    cache = loaded(3, "abc")
    assert cache.use("a", OVER) == "model a"
    assert cache.next_to_go() == "b"


def test_a_model_that_a_request_works_with_goes_after_the_others() -> None:
    cache, request = loaded(2, "ab"), Request()
    cache.use("a", request)
    cache.use("b", OVER)
    assert cache.next_to_go() == "b"
    request.is_over = True
    assert cache.next_to_go() == "a"


def test_where_all_are_worked_with_the_one_not_used_for_longest_goes() -> None:
    cache = loaded(2, "ab")
    cache.use("b", Request())
    cache.use("a", Request())
    assert cache.next_to_go() == "b"


def test_without_a_limit_nothing_ever_goes() -> None:
    assert loaded(UNLIMITED, [str(number) for number in range(1000)]).next_to_go() is None


def test_the_requests_of_a_popular_model_are_not_remembered_for_ever() -> None:
    cache = loaded(1, "a")
    for _ in range(1000):
        request = Request()
        cache.use("a", request)
        request.is_over = True
    assert len(cache._entries["a"].users) <= 32


@pytest.mark.parametrize("capacity", [1, 2, 5])
@given(ids=st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_it_keeps_what_was_used_last(capacity: int, ids: list[str]) -> None:
    cache: ModelCache[str] = ModelCache(capacity)
    recent: list[str] = []
    for each in ids:
        if each in cache:
            cache.use(each, OVER)
        else:
            while (oldest := cache.next_to_go()) is not None:
                cache.remove(oldest)
            cache.add(each, each)
        recent = [*[other for other in recent if other != each], each][-capacity:]
        assert list(cache) == recent
        assert len(cache) <= capacity
