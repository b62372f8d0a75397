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


class Items:
    """What has arrived of one stream.

    Whoever waits looks, leaves a callback, looks again and only then waits; whoever adds first adds and then calls
    back. So no news is lost, although the two may be in different threads.

    Attributes:
        is_over: Nothing more will come.
    """

    __slots__ = ("_arrived", "_callbacks", "_lock", "_owed", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._arrived: deque[tuple[bytes | Arrival, int]] = deque()
        self._callbacks: deque[Callable[[], object]] = deque()
        self._owed = 0
        # What is taken and what is owed for it change together, or credit for a large item could leave some behind.
        self._lock = Lock()

    @property
    def has_news(self) -> bool:
        """Say whether there is an item, or the end."""
        return bool(self._arrived) or self.is_over

    def put(self, pickled: bytes | Arrival, size_bytes: int) -> None:
        """Add an item."""
        self._arrived.append((pickled, size_bytes + ITEM_OVERHEAD_BYTES))
        self._call_back()

    def end(self) -> None:
        """Note that this was all."""
        self.is_over = True
        self._call_back()

    def clear(self) -> None:
        """Forget what nobody will take."""
        self._arrived.clear()

    def take(self) -> Item | None:
        """Return the oldest item, or None if there is none now."""
        with self._lock:
            try:
                pickled, cost_bytes = self._arrived.popleft()
            except IndexError:
                return None
            self._owed += cost_bytes
            # The replica may wait for the credit of a large item, however little that is.
            if self._owed < GRANT_SIZE_BYTES and not isinstance(pickled, Arrival):
                return Item(pickled, 0)
            owed, self._owed = self._owed, 0
        return Item(pickled, owed)

    def call_back(self, callback: Callable[[], object]) -> None:
        """Call back once, at the next news; on the loop that adds them."""
        self._callbacks.append(callback)

    def _call_back(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()()
