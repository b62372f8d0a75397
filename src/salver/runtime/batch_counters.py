"""What batches were like, in plain integers that a metrics page can read at any time."""

from bisect import bisect_left
from weakref import WeakSet

LATENCY_BUCKETS_MS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 1000, 2000, 5000),
    *(10_000, 60_000, 120_000, 300_000, 600_000),
)
UTILIZATION_BUCKETS_PERCENT = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
SIZE_BUCKETS = tuple(2**power for power in range(11))


class Histogram:
    """Counts of values by bucket.

    Attributes:
        bounds: Upper bounds of the buckets, included in them; what is above the last has a bucket of its own.
        counts: How many values were in each bucket.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class BatchCounters:
    """What the batches of one function, or of one instance's method, were like.

    Attributes:
        function_name: The decorated function.
        batch_queue_length: Items that wait now.
        batches_processed: Batches that have been answered.
        batch_wait_time_ms: How long the first item of each batch had waited.
        batch_execution_time_ms: How long the handler took.
        batch_utilization_percent: Items in a batch, as a share of what it might have had.
        actual_batch_size: Items in a batch.
    """

    def __init__(self, function_name: str) -> None:
        self.function_name = function_name
        self.batch_queue_length = 0
        self.batches_processed = 0
        self.batch_wait_time_ms = Histogram(LATENCY_BUCKETS_MS)
        self.batch_execution_time_ms = Histogram(LATENCY_BUCKETS_MS)
        self.batch_utilization_percent = Histogram(UTILIZATION_BUCKETS_PERCENT)
        self.actual_batch_size = Histogram(SIZE_BUCKETS)
        _all.add(self)

    def batch_began(self, size: int, most: int | None, waited_s: float) -> None:
        """Count a batch that is handed to its handler; one whose size is no number of items has no utilization."""
        self.batch_queue_length -= size
        self.actual_batch_size.add(size)
        if most is not None:
            self.batch_utilization_percent.add(100 * size / most)
        self.batch_wait_time_ms.add(1000 * waited_s)

    def batch_ended(self, took_s: float) -> None:
        """Count a batch that is answered."""
        self.batches_processed += 1
        self.batch_execution_time_ms.add(1000 * took_s)


_all: "WeakSet[BatchCounters]" = WeakSet()


def all_batch_counters() -> list[BatchCounters]:
    """Return the counters of everything that batches in this process."""
    return sorted(_all, key=lambda counters: counters.function_name)
