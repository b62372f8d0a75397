"""Adaptive batching against the best fixed limits that a search finds in the same simulation."""

import math
from functools import cache

import pytest

from salver.runtime.adaptive_batching import AdaptiveBatching
from salver.runtime.batch_costs import CostCurve
from salver.runtime.batch_queue import Limits
from salver.runtime.batch_settings import DEFAULT_WAIT_S, Settings
from tests.unit.runtime.batch_simulation import Cost, Fixed, Load, Outcome, Simulation

CURVES: dict[str, Cost] = {
    "flat": lambda size: 0.010,
    "linear": lambda size: 0.004 + 0.0005 * size,
    "step": lambda size: 0.010 * math.ceil(size / 20),
}
SIZES = (8, 12, 16, 20, 32, 40, 48, 64, 128)
WAITS_S = (0.0, 0.002, 0.008, 0.032)
LEARNING_S = 3.0
GOAL_S = 0.1
MANY = Load(clients=64, away_s=0.002)


def settings(goal_s: float = GOAL_S, max_batch_size: int = 128, wait_s: float = DEFAULT_WAIT_S) -> Settings:
    """Return what a decorator would say."""
    return Settings(max_batch_size, wait_s, 1, None, goal_s)


def adaptive(cost: Cost, load: Load, said: Settings | None = None, seed: int = 1) -> Simulation:
    """Return a simulation with limits that adapt."""
    said = said or settings()
    assert said.target_latency_s is not None
    return Simulation(cost, load, AdaptiveBatching(said.target_latency_s), said, seed)


@cache
def best_fixed(curve: str, load: Load) -> Outcome:
    """Search the limits that answer most and keep the goal."""
    outcomes = [
        Simulation(CURVES[curve], load, Fixed(size, wait_s), settings()).run(2.0, skip_s=0.5)
        for size in SIZES
        for wait_s in WAITS_S
    ]
    return max((each for each in outcomes if each.p95 <= GOAL_S), key=lambda each: each.rate)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("clients", [24, 64])
@pytest.mark.parametrize("curve", CURVES)
def test_it_answers_nearly_as_much_as_the_best_fixed_limits_and_keeps_the_goal(
    curve: str, clients: int, seed: int
) -> None:
    load = Load(clients=clients, away_s=0.002)
    found = adaptive(CURVES[curve], load, seed=seed).run(LEARNING_S + 3.0, skip_s=LEARNING_S)
    assert found.rate >= 0.9 * best_fixed(curve, load).rate
    assert found.p95 <= GOAL_S


@pytest.mark.parametrize("curve", CURVES)
def test_with_calls_that_come_whatever_is_answered_it_keeps_up_and_keeps_the_goal(curve: str) -> None:
    found = adaptive(CURVES[curve], Load(per_second=900)).run(LEARNING_S + 3.0, skip_s=LEARNING_S)
    assert found.rate >= 0.95 * 900
    assert found.p95 <= GOAL_S


def test_a_single_caller_never_waits_for_others() -> None:
    found = adaptive(CURVES["flat"], Load(clients=1)).run(3.0, skip_s=1.0)
    assert found.p95 < 0.012


@pytest.mark.parametrize(("before", "after"), [("flat", "step"), ("linear", "flat"), ("step", "linear")])
def test_it_follows_a_change_of_the_costs_within_seconds(before: str, after: str) -> None:
    simulation = adaptive(CURVES[before], MANY)
    simulation.run(LEARNING_S)
    simulation.cost = CURVES[after]
    found = simulation.run(6.0, skip_s=3.0)
    assert found.rate >= 0.9 * best_fixed(after, MANY).rate
    assert found.p95 <= GOAL_S


def test_it_follows_clients_that_come_and_go() -> None:
    simulation = adaptive(CURVES["flat"], Load(clients=24, away_s=0.002))
    simulation.run(LEARNING_S)
    simulation.add_clients(40)
    assert simulation.run(5.0, skip_s=2.0).rate >= 0.9 * best_fixed("flat", MANY).rate
    simulation.remove_clients(40)
    assert simulation.run(5.0, skip_s=2.0).rate >= 0.9 * best_fixed("flat", Load(clients=24, away_s=0.002)).rate


@pytest.mark.parametrize("curve", CURVES)
def test_costs_that_vary_widely_cost_little(curve: str) -> None:
    noisy = Load(clients=64, away_s=0.002, noise=0.2)
    found = adaptive(CURVES[curve], noisy).run(LEARNING_S + 4.0, skip_s=LEARNING_S)
    assert found.rate >= 0.8 * best_fixed(curve, noisy).rate


def test_it_does_not_swing_once_it_has_learned() -> None:
    simulation = adaptive(CURVES["linear"], MANY)
    simulation.run(LEARNING_S)
    rates = [simulation.run(0.5).rate for _ in range(10)]
    # A batch more or less, in half a second, is a tenth of its answers.
    assert min(rates) > 0.75 * max(rates)


def test_batches_that_now_and_then_take_ten_times_as_long_change_little() -> None:
    calls = [0]

    def now_and_then(size: int) -> float:
        calls[0] += 1
        return CURVES["flat"](size) * (10 if calls[0] % 50 == 0 else 1)

    found = adaptive(now_and_then, MANY, settings(goal_s=0.25)).run(LEARNING_S + 4.0, skip_s=LEARNING_S)
    assert found.rate >= 0.9 * best_fixed("flat", MANY).rate / 1.2


def test_its_limits_stay_within_those_of_the_user() -> None:
    bounded = settings(max_batch_size=16, wait_s=0.001)
    chooser = AdaptiveBatching(GOAL_S)
    simulation = Simulation(CURVES["flat"], MANY, chooser, bounded)
    for _ in range(60):
        assert max(simulation.run(0.05).sizes, default=0) <= 16
        assert chooser.limits(bounded).wait_s <= 0.001
    # A new bound holds from the next batch on.
    bounded.max_batch_size = 5
    simulation.run(0.05)
    assert max(simulation.run(0.5).sizes) <= 5


def test_a_goal_that_no_limits_keep_still_gives_the_most_answers() -> None:
    found = adaptive(CURVES["linear"], MANY, settings(goal_s=0.005)).run(LEARNING_S + 2.0, skip_s=LEARNING_S)
    assert found.rate >= 0.9 * best_fixed("linear", MANY).rate


def test_the_same_input_gives_the_same_choice() -> None:
    one, other = (adaptive(CURVES["step"], MANY).run(4.0) for _ in range(2))
    assert one == other


def test_before_anything_is_known_batches_are_small_and_do_not_wait() -> None:
    assert AdaptiveBatching(GOAL_S).limits(settings()) == Limits(8, 0.0)


def _curve(*samples: tuple[int, float]) -> CostCurve:
    curve = CostCurve()
    for number, (size, cost_s) in enumerate(samples):
        curve.add(size, cost_s, number / 1000)
    curve.settle(len(samples) / 1000)
    return curve


def test_costs_are_medians_at_known_sizes_and_interpolated_between() -> None:
    curve = _curve((8, 1.0), (8, 1.1), (8, 9.0), (16, 2.0), (16, 2.0), (16, 2.0))
    assert curve.at(8) == 1.1
    assert curve.at(4) == 1.1
    assert curve.at(12) == pytest.approx(1.55)
    assert 2.0 < curve.at(32) <= 4.0


def test_nothing_is_known_at_first() -> None:
    assert _curve().at(4) == 0.0
    assert _curve().untried(1.0, 100) is None


def test_costs_that_have_changed_replace_all_that_was_known() -> None:
    curve = _curve(*[(8, 1.0)] * 4, *[(16, 2.0)] * 4, *[(8, 5.0)] * 6)
    assert [size for size, _ in curve.points] == [8]
    assert curve.at(8) == 5.0


def test_what_is_old_is_forgotten() -> None:
    curve = _curve(*[(8, 1.0)] * 3)
    curve.add(16, 2.0, 30.0)
    curve.settle(30.0)
    assert curve.points == [(16, 2.0)]


def test_only_sizes_that_may_be_better_are_worth_a_try() -> None:
    step = _curve(*[(16, 1.0)] * 3, *[(64, 4.0)] * 3)
    assert step.untried(16.0, 128) == 40
    assert step.untried(16.0, 32) == 24
    assert step.untried(70.0, 128) is None
