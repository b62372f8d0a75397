"""How long a request takes to arrive."""

from salver.proxy.limits import MIN_UPLOAD_RATE_BYTES_PER_S, SWEEP_PERIOD_S
from salver.proxy.request import Request


class Arrival:
    """The request that is arriving on a connection, and since when."""

    __slots__ = ("_request", "_since")

    def __init__(self) -> None:
        self._request: Request | None = None
        self._since = 0.0

    def note(self, request: Request, now: float) -> None:
        """Take note that some of it has come."""
        if request is not self._request:
            self._request, self._since = request, now

    def is_late(self, now: float, timeout_s: float, *, reading: bool) -> bool:
        """Say, once in each sweep, whether its client has had its time, and more for what it sent of a long body."""
        if self._request is None:
            return False
        if not reading:
            # Time in which we do not read is none that the client takes.
            self._since += SWEEP_PERIOD_S
        return now - self._since > timeout_s + self._request.body_size / MIN_UPLOAD_RATE_BYTES_PER_S
