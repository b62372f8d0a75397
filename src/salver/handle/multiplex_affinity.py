"""Which replica gets a request for a model: one that holds it, before one that would have to load it. Pure."""

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Generic, Protocol, TypeVar

from salver.handle.outgoing import Outgoing

LOOK_AHEAD = 32
"""So many waiting requests are looked at for one whose model a free replica holds; so often the oldest is passed."""
MAX_UNCONFIRMED = 64
"""So many models are remembered as sent to a replica although it has not said that it holds them."""


class Place(Protocol):
    """A replica, as its caller sees it."""

    @property
    def has_room(self) -> bool:
        """Say whether a request may be sent there now."""

    @property
    def in_flight(self) -> Sized:
        """Return what was sent there and is not answered."""

    @property
    def others(self) -> int:
        """Return how many requests of others it has."""


P = TypeVar("P", bound=Place)


class _Models:
    """What is known of one replica's models.

    Attributes:
        told: What it said last.
        unconfirmed: What was sent there since and it has not said; True once it said something else meanwhile.
    """

    def __init__(self) -> None:
        self.told: tuple[str, ...] = ()
        self.unconfirmed: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self.told) + len(self.unconfirmed)


class ModelAffinity(Generic[P]):
    """Knows which replica holds which model, and chooses by it.

    What a replica says comes later than what it was sent: a model counts as held from when a request for it was sent
    there, until the replica says for the second time that it holds others.

    Args:
        random: Draws from [0, 1), to tell apart what is equally good.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._known: dict[P, _Models] = {}
        self._holders: dict[str, dict[P, None]] = {}
        self._oldest = 0
        self._passed = 0

    def holds(self, place: P, model_id: str) -> bool:
        """Say whether a replica holds a model, as far as is known."""
        return place in self._holders.get(model_id, ())

    def told(self, place: P, model_ids: tuple[str, ...]) -> None:
        """Take what a replica says it holds."""
        known = self._known.get(place)
        if known is None:
            if not model_ids:
                return
            known = self._known[place] = _Models()
        if known.told == model_ids:
            return
        before = {*known.told, *known.unconfirmed}
        known.unconfirmed = {
            model_id: True
            for model_id, doubted in known.unconfirmed.items()
            if not doubted and model_id not in model_ids
        }
        known.told = model_ids
        after = {*model_ids, *known.unconfirmed}
        self._remove(place, before - after)
        for model_id in after - before:
            self._holders.setdefault(model_id, {})[place] = None

    def sent(self, place: P, model_id: str) -> None:
        """Take note that a request for a model, or for none, was sent to a replica, which will hold it from now on."""
        if not model_id or self.holds(place, model_id):
            return
        known = self._known.setdefault(place, _Models())
        known.unconfirmed[model_id] = False
        self._holders.setdefault(model_id, {})[place] = None
        if len(known.unconfirmed) > MAX_UNCONFIRMED:
            first = next(iter(known.unconfirmed))
            del known.unconfirmed[first]
            self._remove(place, [first])

    def refused(self, place: P, model_id: str) -> None:
        """Take note that a replica had no room for a request: it will not load the model for it."""
        known = self._known.get(place)
        if known is not None and known.unconfirmed.pop(model_id, None) is not None:
            self._remove(place, [model_id])

    def gone(self, place: P) -> None:
        """Forget a replica."""
        known = self._known.pop(place, None)
        if known is not None:
            self._remove(place, {*known.told, *known.unconfirmed})

    def choose(self, model_id: str, places: Sequence[P]) -> P | None:
        """Return the replica for a request: the least loaded that holds its model, else the one with the fewest models.

        Where all that hold the model are full, it is loaded once more instead of waited for. None where all are full.
        """
        holders = [each for each in self._holders.get(model_id, ()) if each.has_room]
        if holders:
            return min(holders, key=_load)
        free = [each for each in places if each.has_room]
        if not free:
            return None
        # Not always the first one first: other callers choose among the same.
        start = int(self._random() * len(free))
        return min(free[start:] + free[:start], key=lambda each: (len(self._known.get(each, ())), _load(each)))

    def pick(self, place: P, waiting: Iterable[Outgoing]) -> int:
        """Return the place in the queue of the request that a free replica takes.

        It is the oldest whose model it holds, or that is for no model, among the first ones; else the oldest of all.
        None is passed more than a number of times, so all come to their turn.

        Args:
            waiting: The queue, oldest first; not empty of requests that somebody wants.
        """
        oldest = -1
        for index, each in _first_wanted(waiting):
            if oldest < 0:
                oldest = index
                self._begin_with(each.order)
            if self._passed >= LOOK_AHEAD:
                break
            model_id = each.hints.multiplexed_model_id
            if not model_id or self.holds(place, model_id):
                self._passed += index != oldest
                return index
        return oldest

    def _begin_with(self, order: int) -> None:
        if self._oldest != order:
            self._oldest, self._passed = order, 0

    def _remove(self, place: P, model_ids: Iterable[str]) -> None:
        for model_id in model_ids:
            holders = self._holders[model_id]
            del holders[place]
            if not holders:
                del self._holders[model_id]


def _load(place: Place) -> int:
    return len(place.in_flight) + place.others


def _first_wanted(waiting: Iterable[Outgoing]) -> Iterable[tuple[int, Outgoing]]:
    """Yield the first requests that somebody wants, and their places in the queue."""
    left = LOOK_AHEAD
    for index, each in enumerate(waiting):
        if each.abandoned:
            continue
        yield index, each
        left -= 1
        if not left:
            return
