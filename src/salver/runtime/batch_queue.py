"""Which items form the next batch, and when: decided here, without a clock and without an event loop.

Items of different shape (that is, with other arguments) never share a batch, so each shape has a lane. A batch is put
together only when it can run: as long as all permits are taken, later items still join.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

SizeOf = Callable[[list[Any]], Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one batch.

    Attributes:
        max_size: Most items; or, with a size function, the largest size.
        wait_s: How long the first item waits for others.
    """

    max_size: int
    wait_s: float


class Waiting(Protocol):
    """An item that waits for its batch.

    Attributes:
        shape: Items of one batch have the same.
        arrived: When it came.
        deferred: It was put back behind the others, which happens once.
    """

    shape: Any
    arrived: float
    deferred: bool

    @property
    def first(self) -> Any:
        """Its first argument, of which a size function makes its size."""


T = TypeVar("T", bound=Waiting)


class _Lane(Generic[T]):
    """Items of one shape, in their order.

    Attributes:
        limits: Those of the batch that forms, as they were when its first item came.
        fitting: How many of the first items are known to fit into one batch; only counted with a size function.
        is_closed: The next item does not fit any more.
    """

    __slots__ = ("fitting", "is_closed", "items", "limits")

    def __init__(self, limits: Limits) -> None:
        self.items: OrderedDict[T, None] = OrderedDict()
        self.begin(limits)

    def begin(self, limits: Limits) -> None:
        """Begin the next batch, with what is left."""
        self.limits = limits
        self.fitting = 0
        self.is_closed = False

    @property
    def due(self) -> float:
        """When the first item has waited for long enough."""
        return next(iter(self.items)).arrived + self.limits.wait_s


class BatchQueue(Generic[T]):
    """Items that wait, and the batches that they form.

    Args:
        limits: Asked when the first item of a batch comes.
        refuse: Called with an item that can be part of no batch, and the reason.
        size_of: The size of a batch, made of its items' first arguments; None for their number. It is the user's code.
    """

    def __init__(
        self,
        limits: Callable[[], Limits],
        refuse: Callable[[T, BaseException], None],
        size_of: SizeOf | None = None,
    ) -> None:
        self._limits = limits
        self._refuse = refuse
        self._size_of = size_of
        self._lanes: dict[Any, _Lane[T]] = {}

    def __len__(self) -> int:
        return sum(len(lane.items) for lane in self._lanes.values())

    def arrivals(self, most: int) -> list[float]:
        """Return when the items came that wait, in order; of so many at most."""
        found: list[float] = []
        for lane in self._lanes.values():
            found.extend(item.arrived for item in islice(lane.items, most - len(found)))
        return sorted(found)

    def add(self, item: T) -> bool:
        """Take an item; say whether something has changed that a timer was set by: a batch has begun, or is full."""
        lane = self._lanes.get(item.shape)
        if lane is None:
            lane = self._lanes[item.shape] = _Lane(self._limits())
        lane.items[item] = None
        if self._size_of is not None:
            self._measure(item.shape, lane)
        return len(lane.items) == 1 or self._is_full(lane)

    def discard(self, item: T) -> bool:
        """Forget an item; say whether it still waited. Others may be refused, now that batches form without it."""
        lane = self._lanes.get(item.shape)
        if lane is None or item not in lane.items:
            return False
        self._remove(item, lane)
        if self._size_of is not None:
            lane.fitting, lane.is_closed = 0, False
            self._measure(item.shape, lane)
        return True

    def take(self, now: float) -> list[T]:
        """Return the next batch, of which the first item came first; nothing while all should wait for more."""
        ready = [lane for lane in self._lanes.values() if self._is_full(lane) or now >= lane.due]
        if not ready:
            return []
        lane = ready[0] if len(ready) == 1 else min(ready, key=lambda each: next(iter(each.items)).arrived)
        size = min(len(lane.items), lane.limits.max_size) if self._size_of is None else lane.fitting
        batch = [lane.items.popitem(last=False)[0] for _ in range(size)]
        shape = batch[0].shape
        if lane.items:
            lane.begin(self._limits())
            if self._size_of is not None:
                self._measure(shape, lane)
        else:
            del self._lanes[shape]
        return batch

    def due(self) -> float | None:
        """Return when there will be a batch though nothing else comes; None without items."""
        lanes = self._lanes.values()
        return min((-1.0 if self._is_full(lane) else lane.due for lane in lanes), default=None)

    def refresh(self) -> None:
        """Let new limits hold for the batches that form now, too."""
        for shape, lane in list(self._lanes.items()):
            lane.begin(self._limits())
            if self._size_of is not None:
                self._measure(shape, lane)

    def _is_full(self, lane: _Lane[T]) -> bool:
        return lane.is_closed or (self._size_of is None and len(lane.items) >= lane.limits.max_size)

    def _remove(self, item: T, lane: _Lane[T]) -> None:
        del lane.items[item]
        if not lane.items:
            del self._lanes[item.shape]

    def _measure(self, shape: Any, lane: _Lane[T]) -> None:
        """Find how many of the first items fit into one batch; whatever the user's function raises is one item's."""
        while not lane.is_closed and lane.fitting < len(lane.items) and shape in self._lanes:
            candidates = list(islice(lane.items, lane.fitting + 1))
            try:
                excess = self._excess(candidates, lane.limits.max_size)
                if excess > 0 and (alone := self._excess(candidates[-1:], lane.limits.max_size)) > 0:
                    raise RuntimeError(
                        f"Size of item is greater than max_batch_size. It is {alone + lane.limits.max_size}, and "
                        f"max_batch_size is {lane.limits.max_size}; raise the limit or split the item."
                    )
            except BaseException as error:  # noqa: BLE001 - user code may raise anything, and only this item fails
                self._remove(candidates[-1], lane)
                self._refuse(candidates[-1], error)
            else:
                self._place(candidates[-1], lane, excess)

    def _excess(self, items: list[T], max_size: int) -> Any:
        assert self._size_of is not None
        size = self._size_of([item.first for item in items])
        # Compared here, so that what is no number fails as the function itself does.
        return size - max_size if size >= max_size else -1

    def _place(self, item: T, lane: _Lane[T], excess: Any) -> None:
        if excess <= 0:
            lane.fitting += 1
        # Nothing fits into a batch of the whole size; that an item has no size at all is not worth a wait.
        lane.is_closed = excess >= 0
        if excess > 0 and not item.deferred:
            item.deferred = True
            lane.items.move_to_end(item)
