"""How many lost requests may be sent again, so that an application that kills its replicas is not hammered as well.

A retry is paid for by requests: the retries of the last while are at most a share of the requests of that while, and a
few more, so that a quiet application may retry too: all that one dying replica had, mostly. This is the retry budget of
Finagle (https://finagle.github.io/blog/2016/02/08/retry-budgets), from which Linkerd has its own, with their figures: a
fifth of the requests and ten a second, remembered for ten seconds.

Pure, and nothing is done for a request that is not lost: the requests are counted anyway.
"""

from math import exp
from typing import Final

SHARE: Final = 0.2
"""So many retries a request."""
MIN_RETRIES: Final = 100.0
"""So many retries within the memory whatever is asked."""
MEMORY_S: Final = 10.0
"""What is older than this is as good as forgotten."""


class RetryBudget:
    """Retries of one router; what it remembers fades.

    Over any time there are at most `MIN_RETRIES * (1 + seconds / MEMORY_S) + SHARE * requests` of them.

    Args:
        now: Monotonic seconds.
    """

    __slots__ = ("_at", "_counted", "_requests", "_retries")

    def __init__(self, now: float) -> None:
        self._at = now
        self._counted = 0
        self._requests = 0.0
        self._retries = 0.0

    def take(self, num_requests: int, now: float) -> bool:
        """Say whether one more request may be sent again, and remember it if so.

        Args:
            num_requests: How many requests the router has been given in its life, retries not counted.
            now: Monotonic seconds.
        """
        elapsed_s = max(now - self._at, 0.0)
        kept = exp(-elapsed_s / MEMORY_S)
        came = num_requests - self._counted
        # When they came is not known: evenly, so that a long silence is not paid for by what was before it.
        recent = came if elapsed_s <= MEMORY_S else came * MEMORY_S / elapsed_s
        self._requests = self._requests * kept + recent
        self._retries *= kept
        self._at, self._counted = now, num_requests
        if self._retries + 1 > MIN_RETRIES + SHARE * self._requests:
            return False
        self._retries += 1
        return True
