"""All clients' connections of a proxy: who is silent, who comes when there are too many."""

from collections.abc import Iterator
from typing import Protocol

from salver.proxy.limits import MAX_TURNED_AWAY, STALL_TIMEOUT_S
from salver.schema.outcomes import Outcome

OVERLOADED = Outcome(
    503,
    b"Service Unavailable: this proxy has as many connections as it may have.",
    ((b"retry-after", b"1"),),
)


class Guest(Protocol):
    """A client's connection.

    Attributes:
        resting: It is silent; it calls `Crowd.woke` before it does anything else.
    """

    resting: bool

    @property
    def idle_since(self) -> float | None:
        """Loop time when it fell silent; None while anything is asked of it or answered."""

    @property
    def unsent_size_bytes(self) -> int:
        """How much of what it was sent its client has not read."""

    @property
    def is_closing(self) -> bool:
        """It ends when all is sent."""

    def look(self, now: float) -> None:
        """End what takes too long."""

    def leave(self, now: float) -> None:
        """Close it, although its client may have wanted to ask more."""

    def finish(self) -> None:
        """Close it when its client has what it asked for."""

    def turn_away(self, outcome: Outcome) -> None:
        """Answer whatever its client asks with this, and close it."""

    def cut(self) -> None:
        """Break it."""


class Crowd:
    """The connections, those that were silent at the last sweep apart, in the order in which they fell silent.

    A sweep looks at those that are not; of the silent ones it looks at the first, so that ten thousand cost nothing.

    Args:
        most: As many may be open. Above it a newcomer takes the place of the one that was silent for longest; where
            none is silent, the newcomer is turned away.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._active: set[Guest] = set()
        self._resting: dict[Guest, None] = {}
        self._turned_away: set[Guest] = set()
        self._leaving: set[Guest] = set()
        """Those who hold no place any longer, but are looked at until they are closed."""
        self._stuck: dict[Guest, tuple[int, float]] = {}
        """Those who have something to read: how much, and since when that has not changed."""

    def __len__(self) -> int:
        return len(self._active) + len(self._resting)

    def __iter__(self) -> Iterator[Guest]:
        return iter([*self._active, *self._resting])

    def opened(self, guest: Guest, now: float) -> None:
        """A client has come."""
        self._active.add(guest)
        if len(self) - len(self._leaving) > self._most:
            self._make_room(guest, now)

    def closed(self, guest: Guest) -> None:
        """A client has gone."""
        self._active.discard(guest)
        self._resting.pop(guest, None)
        self._turned_away.discard(guest)
        self._leaving.discard(guest)
        self._stuck.pop(guest, None)

    def woke(self, guest: Guest) -> None:
        """A silent client has sent something."""
        guest.resting = False
        self._resting.pop(guest, None)
        self._active.add(guest)

    def sweep(self, now: float, keep_alive_timeout_s: float) -> None:
        """End what takes too long."""
        silent = []
        for guest in list(self._active):
            guest.look(now)
            unsent = guest.unsent_size_bytes
            if unsent or guest.is_closing:
                self._look_whether_stuck(guest, unsent, now)
                continue
            self._stuck.pop(guest, None)
            since = guest.idle_since
            if since is not None:
                silent.append((since, guest))
        for _, guest in sorted(silent, key=_since):
            guest.resting = True
            self._active.discard(guest)
            self._resting[guest] = None
        overdue = []
        for guest in self._resting:
            since = guest.idle_since
            if since is not None and now - since <= keep_alive_timeout_s:
                break
            overdue.append(guest)
        for guest in overdue:
            self._dismiss(guest, now)

    def finish(self) -> None:
        """Close what is silent."""
        for guest in self:
            guest.finish()

    def _look_whether_stuck(self, guest: Guest, unsent: int, now: float) -> None:
        size, since = self._stuck.get(guest, (-1, now))
        if size != unsent:
            self._stuck[guest] = (unsent, now)
        elif now - since > STALL_TIMEOUT_S:
            guest.cut()

    def _make_room(self, newcomer: Guest, now: float) -> None:
        longest_silent = next(iter(self._resting), None)
        if longest_silent is not None:
            self._dismiss(longest_silent, now)
            return
        self._leaving.add(newcomer)
        if len(self._turned_away) < MAX_TURNED_AWAY:
            self._turned_away.add(newcomer)
            newcomer.turn_away(OVERLOADED)
        else:
            newcomer.cut()

    def _dismiss(self, guest: Guest, now: float) -> None:
        self.woke(guest)
        self._leaving.add(guest)
        guest.leave(now)


def _since(silent: tuple[float, Guest]) -> float:
    return silent[0]
