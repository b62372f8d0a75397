"""What has arrived of a stream and nobody has taken yet: put in on one loop, taken out in any thread."""

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from salver.transport.payloads import Arrival
from salver.transport.wire import ITEM_OVERHEAD_BYTES

GRANT_SIZE_BYTES = 64 * 1024
"""The replica is told in steps of this size that items are taken; far less than it may send unasked."""


class Item(NamedTuple):
    """What was taken.

    Attributes:
        pickled: The value, in bytes or in lent memory.
        grant_bytes: How much more the replica may send now; 0 mostly.
    """

    pickled: bytes | Arrival
    grant_bytes: int


class _Place:
    """Where an item is in its stream; without one, a gap."""

    __slots__ = ("cost_bytes", "pickled")

    def __init__(self, pickled: bytes | Arrival | None, cost_bytes: int) -> None:
        self.pickled = pickled
        self.cost_bytes = cost_bytes


class Items:
    """What has arrived of one stream.

    Whoever waits looks, leaves a callback, looks again and only then waits; whoever adds first adds and then calls
    back. So no news is lost, although the two may be in different threads.

    Attributes:
        is_over: Nothing more will come.
    """

    __slots__ = ("_arrived", "_callbacks", "_gaps", "_lock", "_owed", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._arrived: deque[_Place] = deque()
        self._gaps: deque[_Place] = deque()
        self._callbacks: deque[Callable[[], object]] = deque()
        self._owed = 0
        # Readers may be in several threads: none may forget what another has added to what is owed.
        self._lock = Lock()

    @property
    def has_news(self) -> bool:
        """Say whether there is an item, or the end."""
        with self._lock:
            return self.is_over or (bool(self._arrived) and self._arrived[0].pickled is not None)

    @property
    def has_gaps(self) -> bool:
        """Say whether items are missing."""
        return bool(self._gaps)

    def put(self, pickled: bytes | Arrival, size_bytes: int) -> None:
        """Add an item."""
        self._arrived.append(_Place(pickled, size_bytes + ITEM_OVERHEAD_BYTES))
        self._call_back()

    def leave_gap(self) -> None:
        """Leave the place of an item that will come later."""
        gap = _Place(None, 0)
        self._gaps.append(gap)
        self._arrived.append(gap)

    def fill_gap(self, pickled: bytes | Arrival, size_bytes: int) -> None:
        """Add the item whose place is the oldest that was left."""
        gap = self._gaps.popleft()
        gap.cost_bytes = size_bytes + ITEM_OVERHEAD_BYTES
        gap.pickled = pickled
        self._call_back()

    def end(self) -> None:
        """Note that this was all; what follows a gap is lost."""
        self.is_over = True
        self._call_back()

    def clear(self) -> None:
        """Forget what nobody will take."""
        with self._lock:
            self._arrived.clear()

    def take(self) -> Item | None:
        """Return the oldest item, or None if there is none now."""
        if not self._arrived:
            return None
        with self._lock:
            if not self._arrived or (pickled := self._arrived[0].pickled) is None:
                return None
            self._owed += self._arrived.popleft().cost_bytes
            if self._owed < GRANT_SIZE_BYTES:
                return Item(pickled, 0)
            owed, self._owed = self._owed, 0
        return Item(pickled, owed)

    def call_back(self, callback: Callable[[], object]) -> None:
        """Call back once, at the next news; on the loop that adds them."""
        self._callbacks.append(callback)

    def _call_back(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()()
