"""Who is silent, who takes whose place, and what a sweep looks at."""

from dataclasses import dataclass, field

import pytest

from salver.proxy.crowd import OVERLOADED, Crowd
from salver.proxy.limits import MAX_TURNED_AWAY, STALL_TIMEOUT_S
from salver.schema.outcomes import Outcome

TIMEOUT_S = 90.0


@dataclass(eq=False)
class Client:
    """A connection that notes what is done to it."""

    idle_since: float | None = None
    resting: bool = False
    told: list[str] = field(default_factory=list)
    looks: int = 0
    unsent_size_bytes: int = 0
    is_closing: bool = False

    def look(self, now: float) -> None:
        self.looks += 1

    def leave(self, now: float) -> None:
        self.idle_since = None
        self.told.append("leave")

    def finish(self) -> None:
        self.told.append("finish")

    def turn_away(self, outcome: Outcome) -> None:
        assert outcome is OVERLOADED
        self.told.append("turn away")

    def cut(self) -> None:
        self.told.append("cut")


def silent(crowd: Crowd, *since: float) -> list[Client]:
    clients = [Client(each) for each in since]
    for each in clients:
        crowd.opened(each, 0)
        crowd.sweep(each.idle_since or 0, TIMEOUT_S)
    return clients


def test_a_sweep_looks_at_those_that_do_something_and_not_at_the_silent() -> None:
    crowd = Crowd(1000)
    clients = silent(crowd, *range(10))
    busy = Client()
    crowd.opened(busy, 10)
    looks = [each.looks for each in clients]
    for _ in range(5):
        crowd.sweep(11, TIMEOUT_S)
    assert busy.looks == 5
    assert [each.looks for each in clients] == looks
    assert all(each.resting for each in clients)
    assert len(crowd) == 11


def test_who_is_silent_for_too_long_leaves() -> None:
    crowd = Crowd(1000)
    first, second, third = silent(crowd, 0, 5, 50)
    crowd.sweep(96, TIMEOUT_S)
    assert [each.told for each in (first, second, third)] == [["leave"], ["leave"], []]


def test_who_wakes_is_looked_at_again_and_rests_behind_the_others() -> None:
    crowd = Crowd(2)
    first, second = silent(crowd, 0, 5)
    crowd.woke(first)
    assert not first.resting
    first.idle_since = None
    crowd.sweep(6, TIMEOUT_S)
    assert first.looks == 2
    first.idle_since = 7
    crowd.sweep(8, TIMEOUT_S)
    crowd.opened(Client(), 8)
    assert (first.told, second.told) == ([], ["leave"])


def test_a_newcomer_takes_the_place_of_the_one_that_was_silent_for_longest() -> None:
    crowd = Crowd(3)
    clients = silent(crowd, 1, 2, 3)
    newcomers = [Client(), Client()]
    for each in newcomers:
        crowd.opened(each, 4)
    assert [each.told for each in (*clients, *newcomers)] == [["leave"], ["leave"], [], [], []]


def test_of_those_that_a_sweep_finds_silent_the_first_one_leaves_first() -> None:
    crowd = Crowd(50)
    clients = [Client(float(50 - number)) for number in range(50)]
    for each in clients:
        crowd.opened(each, 60)
    crowd.sweep(60, TIMEOUT_S)
    for _ in range(3):
        crowd.opened(Client(), 61)
    assert [each.told for each in clients] == [[]] * 47 + [["leave"]] * 3


def test_where_nobody_is_silent_a_newcomer_is_turned_away_and_the_hundredth_cut_off() -> None:
    crowd = Crowd(2)
    for _ in range(2):
        crowd.opened(Client(), 0)
    newcomers = [Client() for _ in range(MAX_TURNED_AWAY + 2)]
    for each in newcomers:
        crowd.opened(each, 0)
    assert [each.told for each in newcomers] == [["turn away"]] * MAX_TURNED_AWAY + [["cut"]] * 2
    crowd.closed(newcomers[0])
    crowd.closed(newcomers[-1])
    crowd.opened(again := Client(), 0)
    assert again.told == ["turn away"]


def test_a_place_that_became_free_is_given() -> None:
    crowd = Crowd(1)
    first, refused, later = Client(), Client(), Client()
    crowd.opened(first, 0)
    crowd.opened(refused, 0)
    crowd.closed(first)
    crowd.opened(later, 0)
    assert (refused.told, later.told) == (["turn away"], [])


@pytest.mark.parametrize("closing", [False, True])
def test_who_reads_nothing_of_what_it_is_sent_is_cut_off(closing: bool) -> None:
    crowd = Crowd(5)
    slow, stuck = Client(0.0, unsent_size_bytes=100), Client(0.0, unsent_size_bytes=100, is_closing=closing)
    for each in (slow, stuck):
        crowd.opened(each, 0)
    for second in range(int(STALL_TIMEOUT_S) + 1):
        crowd.sweep(second, TIMEOUT_S)
        slow.unsent_size_bytes -= second % 2
        assert (slow.told, stuck.told, stuck.resting) == ([], [], False)
    crowd.sweep(STALL_TIMEOUT_S + 1, TIMEOUT_S)
    assert (slow.told, stuck.told) == ([], ["cut"])


def test_who_has_read_it_all_starts_afresh() -> None:
    crowd = Crowd(5)
    client = Client(None, unsent_size_bytes=100)
    crowd.opened(client, 0)
    for second in range(3 * int(STALL_TIMEOUT_S)):
        client.unsent_size_bytes = 0 if second == STALL_TIMEOUT_S else 100
        crowd.sweep(second, TIMEOUT_S)
        if second < 2 * STALL_TIMEOUT_S:
            assert client.told == []
    assert set(client.told) == {"cut"}


def test_who_is_closed_and_does_not_go_is_cut_off() -> None:
    crowd = Crowd(5)
    client = Client(None, is_closing=True)
    crowd.opened(client, 0)
    crowd.sweep(1, TIMEOUT_S)
    crowd.sweep(STALL_TIMEOUT_S + 2, TIMEOUT_S)
    assert client.told == ["cut"]


@pytest.mark.parametrize("gone", ["active", "resting"])
def test_who_is_gone_is_forgotten(gone: str) -> None:
    crowd = Crowd(1)
    client = Client(0.0 if gone == "resting" else None)
    crowd.opened(client, 0)
    crowd.sweep(1, TIMEOUT_S)
    crowd.closed(client)
    assert (len(crowd), list(crowd)) == (0, [])


def test_all_are_asked_to_finish() -> None:
    crowd = Crowd(5)
    [quiet] = silent(crowd, 0)
    busy = Client()
    crowd.opened(busy, 0)
    crowd.finish()
    assert quiet.told == busy.told == ["finish"]
