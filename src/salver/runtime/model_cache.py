"""Which models a replica keeps: the ones used last, and those in use before all others. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

M = TypeVar("M")

UNLIMITED = -1
_FEW = 16


class User(Protocol):
    """Who works with a model: a request."""

    is_over: bool


class _Entry(Generic[M]):
    """A model and the requests that were given it."""

    def __init__(self, model: M) -> None:
        self.model = model
        self.users: set[User] = set()
        self._most = _FEW

    def add(self, user: User) -> None:
        if user.is_over:
            return
        self.users.add(user)
        # Nobody tells when a request is over: now and then, those that are go.
        if len(self.users) > self._most:
            self.users = {each for each in self.users if not each.is_over}
            self._most = max(_FEW, 2 * len(self.users))

    @property
    def in_use(self) -> bool:
        return any(not each.is_over for each in self.users)


class ModelCache(Generic[M]):
    """The loaded models of one loader, the one used last at the end.

    Args:
        capacity: How many there may be; -1 for any number.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry[M]] = OrderedDict()

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def use(self, model_id: str, user: User) -> M:
        """Return a model that is there; it is the one used last from now on.

        Args:
            user: Works with it until it is over.
        """
        entry = self._entries[model_id]
        self._entries.move_to_end(model_id)
        entry.add(user)
        return entry.model

    def add(self, model_id: str, model: M) -> None:
        """Take in a model that was loaded."""
        self._entries[model_id] = _Entry(model)

    def next_to_go(self) -> str | None:
        """Return which model must go before one more is loaded; None where there is room.

        It is the one that was not used for longest among those that no request works with. Where all are worked with,
        waiting could be for ever (two requests may wait for each other), so it is the one of all.
        """
        if self._capacity == UNLIMITED or len(self._entries) < self._capacity:
            return None
        idle = (model_id for model_id, entry in self._entries.items() if not entry.in_use)
        return next(idle, next(iter(self._entries)))

    def remove(self, model_id: str) -> M:
        """Return a model that is to be unloaded; it is not kept any more."""
        return self._entries.pop(model_id).model
