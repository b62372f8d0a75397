"""Who may come in: `max_ongoing_requests`, held to strictly, and a line of callers that were refused.

See docs/design/0002. Pure: no sockets, no clock.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Caller = TypeVar("Caller", bound=Hashable)


class Admission(Generic[Caller]):
    """Counts requests against a limit.

    Args:
        limit: How many may run at once.
        offer: Called with a caller for whom a slot is now held; it answers with a held request or a pass.
    """

    def __init__(self, limit: int, offer: Callable[[Caller], None]) -> None:
        self.limit = limit
        self.running = 0
        self.closed = False
        self._offer = offer
        self._held: dict[Caller, int] = {}
        self._line: OrderedDict[Caller, None] = OrderedDict()
        self._num_held = 0

    @property
    def taken(self) -> int:
        """Return how many slots are used or held."""
        return self.running + self._num_held

    def enter(self, caller: Caller, *, held: bool) -> bool:
        """Let a request in, or put its caller in line and return False."""
        if held and self._take_held(caller):
            self.running += 1
            return True
        if not self.closed and self.taken < self.limit:
            self.running += 1
            return True
        self.wait(caller)
        return False

    def reserve(self, caller: Caller, *, held: bool) -> bool:
        """Hold a slot for a request that is to come, or put the caller in line and return False.

        Args:
            held: The caller would use a slot that was held for it; it stays so.
        """
        if held and caller in self._held:
            return True
        if not self.closed and self.taken < self.limit:
            self._hold(caller)
            return True
        self.wait(caller)
        return False

    def leave(self) -> None:
        """A request is finished."""
        self.running -= 1
        if self._line:
            self._offer_free_slots()

    def wait(self, caller: Caller) -> bool:
        """Put a caller in line, where it stands once however often it asks; say whether it was offered a slot."""
        if self.closed:
            return False
        if caller not in self._line:
            self._line[caller] = None
            self._offer_free_slots()
        return caller not in self._line

    def give_up(self, caller: Caller) -> None:
        """A caller hands back one slot that was held for it."""
        if self._take_held(caller):
            self._offer_free_slots()

    def forget(self, caller: Caller) -> None:
        """A caller is gone: its place in line and its held slots with it."""
        self._line.pop(caller, None)
        self._num_held -= self._held.pop(caller, 0)
        self._offer_free_slots()

    def change_limit(self, limit: int) -> None:
        """Run at most this many from now on; what runs is not interrupted."""
        self.limit = limit
        self._offer_free_slots()

    def close(self) -> None:
        """Let nobody in any more who does not hold a slot."""
        self.closed = True
        self._line.clear()

    def _take_held(self, caller: Caller) -> bool:
        count = self._held.get(caller, 0)
        if count == 0:
            return False
        if count == 1:
            del self._held[caller]
        else:
            self._held[caller] = count - 1
        self._num_held -= 1
        return True

    def _offer_free_slots(self) -> None:
        while self._line and not self.closed and self.taken < self.limit:
            caller, _ = self._line.popitem(last=False)
            self._hold(caller)
            self._offer(caller)

    def _hold(self, caller: Caller) -> None:
        self._held[caller] = self._held.get(caller, 0) + 1
        self._num_held += 1
