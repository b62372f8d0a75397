"""Retries are paid for by requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.handle.retry_budget import MEMORY_S, MIN_RETRIES, SHARE, RetryBudget

steps = st.lists(
    st.tuples(
        st.floats(0, 100, allow_nan=False),
        st.integers(0, 1000),
        st.integers(0, 300),
    ),
    max_size=40,
)


def taken(budget: RetryBudget, wanted: int, num_requests: int, now: float) -> int:
    """Return how many retries of so many are allowed."""
    return sum(budget.take(num_requests, now) for _ in range(wanted))


@given(steps)
def test_there_are_never_more_retries_than_the_requests_and_the_time_pay_for(
    given_steps: list[tuple[float, int, int]],
) -> None:
    began = now = 1000.0
    budget, num_requests, retries = RetryBudget(now), 0, 0
    for seconds, came, wanted in given_steps:
        now += seconds
        num_requests += came
        retries += taken(budget, wanted, num_requests, now)
        assert retries <= MIN_RETRIES * (1 + (now - began) / MEMORY_S) + SHARE * num_requests + 1e-6


@given(steps, st.integers(0, int(MIN_RETRIES)))
def test_after_a_silence_a_few_retries_are_always_allowed(
    given_steps: list[tuple[float, int, int]], wanted: int
) -> None:
    now = 1000.0
    budget, num_requests = RetryBudget(now), 0
    for seconds, came, tried in given_steps:
        now += seconds
        num_requests += came
        taken(budget, tried, num_requests, now)
    assert taken(budget, wanted - 1, num_requests, now + 20 * MEMORY_S) == max(wanted - 1, 0)


def test_a_new_budget_has_its_minimum_and_no_more() -> None:
    budget = RetryBudget(0.0)
    assert taken(budget, 1000, 0, 0.0) == MIN_RETRIES
    assert taken(budget, 1000, 0, 0.01) == 0


def test_requests_pay_for_their_share() -> None:
    budget = RetryBudget(0.0)
    assert taken(budget, 1000, 1000, 1.0) == MIN_RETRIES + SHARE * 1000


def test_under_a_crash_loop_retries_stay_a_share_of_the_load() -> None:
    budget, retries = RetryBudget(0.0), 0
    for second in range(600):
        retries += taken(budget, 1000, 500 * second, float(second))
    per_s = retries / 600
    assert per_s == pytest.approx(SHARE * 500 + MIN_RETRIES / MEMORY_S, rel=0.1)


def test_what_was_long_ago_pays_for_nothing() -> None:
    budget = RetryBudget(0.0)
    assert taken(budget, 10_000, 1_000_000, 10_000.0) == int(MIN_RETRIES + SHARE * 1_000_000 * MEMORY_S / 10_000)
    assert taken(budget, 10_000, 1_000_000, 20_000.0) == MIN_RETRIES


def test_a_clock_that_stands_still_or_goes_back_is_no_harm() -> None:
    budget = RetryBudget(100.0)
    assert taken(budget, 60, 0, 50.0) == 60
    assert taken(budget, 100, 0, 50.0) == 40
