"""Deadlines: in time, in order, with one timer."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from salver.lib.deadlines import Deadlines


class Timer:
    """One callback."""

    def __init__(self, loop: "Loop", when: float, callback: Callable[[], None]) -> None:
        self.loop = loop
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self.loop.timers.discard(self)


class Loop:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: set[Timer] = set()
        self.num_timers = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, self.now + delay_s, callback)
        self.timers.add(timer)
        self.num_timers += 1
        return timer

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [each for each in self.timers if each.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self.timers.discard(timer)
            self.now = max(self.now, timer.when)
            timer.callback()
        self.now = end


class Watched:
    """Remembers when it was called back."""

    def __init__(self, loop: Loop, then: Callable[[], None] = lambda: None) -> None:
        self.loop = loop
        self.told: list[float] = []
        self.then = then

    def on_deadline(self, now: float) -> None:
        assert now == self.loop.now
        self.told.append(now)
        self.then()


def made() -> tuple[Loop, Deadlines]:
    loop = Loop()
    return loop, Deadlines(loop.time, loop.call_later)


@given(st.lists(st.floats(0, 20_000), max_size=30), st.lists(st.floats(0, 5000), max_size=30))
def test_all_are_told_once_soon_after_their_time_and_never_before(delays: list[float], steps: list[float]) -> None:
    loop, deadlines = made()
    watched = []
    for index, delay in enumerate(delays):
        each = Watched(loop)
        watched.append((each, loop.now + delay))
        deadlines.watch(each, loop.now + delay)
        loop.pass_time(steps[index] if index < len(steps) else 0)
    loop.pass_time(30_000)
    for (each, deadline), delay in zip(watched, delays, strict=True):
        [told] = each.told
        assert deadline <= told <= deadline + (0.02 if delay < 10 else 0.2 if delay < 1000 else 6)
    assert (len(deadlines), deadlines._buckets, deadlines._order, loop.timers) == (0, {}, [], set())


def test_what_is_forgotten_is_not_told() -> None:
    loop, deadlines = made()
    first, second = Watched(loop), Watched(loop)
    deadlines.watch(first, loop.now + 1)
    deadlines.watch(second, loop.now + 1)
    deadlines.forget(first)
    deadlines.forget(first)
    loop.pass_time(2)
    assert (len(first.told), len(second.told)) == (0, 1)


def test_one_may_be_forgotten_by_another_that_is_told_at_the_same_moment() -> None:
    loop, deadlines = made()
    pair: list[Watched] = []

    def forget_both() -> None:
        for each in pair:
            deadlines.forget(each)

    pair += [Watched(loop, forget_both) for _ in range(2)]
    for each in pair:
        deadlines.watch(each, loop.now + 1)
    loop.pass_time(2)
    assert sum(len(each.told) for each in pair) == 1


def test_an_earlier_deadline_replaces_a_later_one_and_not_the_other_way_round() -> None:
    loop, deadlines = made()
    each = Watched(loop)
    began = loop.now
    deadlines.watch(each, began + 5)
    deadlines.watch(each, began + 1)
    deadlines.watch(each, began + 9)
    loop.pass_time(20)
    assert [round(told - began) for told in each.told] == [1]
    assert len(deadlines) == 0


def test_one_that_is_told_may_be_watched_again() -> None:
    loop, deadlines = made()
    began = loop.now
    each = Watched(loop)
    each.then = lambda: deadlines.watch(each, loop.now + 1) if len(each.told) < 3 else None
    deadlines.watch(each, began + 1)
    loop.pass_time(20)
    assert [round(told - began) for told in each.told] == [1, 2, 3]


def test_many_deadlines_need_few_timers() -> None:
    loop, deadlines = made()
    for _ in range(10_000):
        each = Watched(loop)
        deadlines.watch(each, loop.now + 1)
        deadlines.forget(each)
        loop.now += 0.0001
    assert len(loop.timers) == 1
    assert len(deadlines._buckets) < 150
    loop.pass_time(5)
    assert loop.num_timers < 300


def test_a_deadline_far_away_does_not_ask_too_much_of_a_loop() -> None:
    loop, deadlines = made()
    each = Watched(loop)
    deadlines.watch(each, loop.now + 1e15)
    assert max(timer.when for timer in loop.timers) < loop.now + 4000
    loop.pass_time(20_000)
    assert each.told == []


def test_a_closed_one_tells_nobody() -> None:
    loop, deadlines = made()
    each = Watched(loop)
    deadlines.watch(each, loop.now + 1)
    deadlines.close()
    loop.pass_time(5)
    assert (each.told, loop.timers) == ([], set())
