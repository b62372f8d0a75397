"""What a replica tells of itself, and how often."""

from collections.abc import Callable
from typing import Any

from salver.replica.reports import MIN_PAUSE_S, Reports
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import Message, ReplicaReport

REPLICA = ReplicaID("r1", DeploymentID("Model", "shop"))


class Clockwork:
    """Time that stands still until it is moved, and what is to happen in it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[Message] = []
        self.timers: list[Timer] = []
        self.reports = Reports(REPLICA, self.told.append, lambda: self.now, self.call_later)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "Timer":
        self.timers.append(Timer(self, self.now + delay_s, callback))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for timer in [each for each in self.timers if each.when <= self.now]:
            self.timers.remove(timer)
            timer.callback()


class Timer:
    """A callback that has not come yet."""

    def __init__(self, clockwork: Clockwork, when: float, callback: Callable[[], None]) -> None:
        self.clockwork, self.when, self.callback = clockwork, when, callback

    def cancel(self) -> None:
        if self in self.clockwork.timers:
            self.clockwork.timers.remove(self)


def report(**fields: Any) -> ReplicaReport:
    return ReplicaReport(replica=REPLICA, **fields)


def test_the_first_change_is_told_at_once() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ("a",))
    assert time.told == [report(multiplexed_model_ids=("a",))]


def test_changes_that_follow_quickly_are_told_together() -> None:
    time = Clockwork()
    for ids in [("a",), ("a", "b"), ("b",), ("b", "c")]:
        time.reports.change("multiplexed_model_ids", ids)
    time.reports.change("routing_stats", {"load": 1.0})
    time.pass_time(MIN_PAUSE_S)
    assert time.told == [
        report(multiplexed_model_ids=("a",)),
        report(multiplexed_model_ids=("b", "c"), routing_stats={"load": 1.0}),
    ]


def test_it_is_told_ten_times_a_second_at_most() -> None:
    time = Clockwork()
    for number in range(1000):
        time.reports.change("multiplexed_model_ids", (str(number),))
        time.pass_time(0.001)
    assert len(time.told) <= 11


def test_nothing_is_told_when_nothing_changes() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ())
    time.reports.change("routing_stats", {"load": 1.0})
    for _ in range(3):
        time.pass_time(1.0)
        time.reports.change("routing_stats", {"load": 1.0})
    assert time.told == [report(routing_stats={"load": 1.0})]
    assert time.timers == []


def test_what_came_back_to_what_it_was_is_not_told() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ("a",))
    time.reports.change("multiplexed_model_ids", ("a", "b"))
    time.reports.change("multiplexed_model_ids", ("a",))
    time.pass_time(MIN_PAUSE_S)
    assert len(time.told) == 1


def test_what_is_flushed_is_told_without_a_pause() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ("a",))
    time.reports.change("metadata", {"zone": "north"})
    time.reports.flush()
    assert time.told == [report(multiplexed_model_ids=("a",)), report(metadata={"zone": "north"})]
    assert time.timers == []


def test_a_closed_one_tells_nothing_more() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ("a",))
    time.reports.change("multiplexed_model_ids", ("b",))
    time.reports.close()
    time.pass_time(1.0)
    assert len(time.told) == 1


def test_a_new_controller_is_told_everything_again() -> None:
    time = Clockwork()
    time.reports.change("multiplexed_model_ids", ("a",))
    time.reports.change("metadata", {"zone": "north"})
    time.reports.repeat()
    assert time.told[-1] == report(multiplexed_model_ids=("a",), metadata={"zone": "north"})
    time.reports.repeat()
    assert len(time.told) == 3
    assert time.told[-1] == time.told[-2]
