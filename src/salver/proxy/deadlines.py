"""How long a client waits, and what goes on without it."""

from math import isfinite
from typing import TYPE_CHECKING

from salver.proxy.heads import Head
from salver.proxy.site import Site
from salver.schema.outcomes import Outcome

if TYPE_CHECKING:
    from salver.proxy.exchange import Exchange


def timeout_s_of(header: bytes, default_s: float | None) -> float | None:
    """Return how many seconds a request may take, or None: as its header says, else the default."""
    asked_s = _seconds(header) if header else None
    timeout_s = default_s if asked_s is None else asked_s
    return timeout_s if timeout_s is not None and timeout_s > 0 else None


def _seconds(text: bytes) -> float | None:
    try:
        # Python's own numbers may have underscores, those of headers do not.
        seconds = float(text) if b"_" not in text else None
    except ValueError:
        return None
    return seconds if seconds is not None and isfinite(seconds) else None


def timed_out(request_id: bytes, timeout_s: float) -> Outcome:
    """Return the answer to a request whose time is over."""
    return Outcome(408, f"Request {request_id.decode('latin-1')} timed out after {float(timeout_s)}s.".encode())


class Abandoned:
    """Stands in for a client that has left and did not want its request to end with it: reads the answer for nobody.

    The proxy's drain waits for it as for a client.
    """

    def __init__(self, site: Site, exchange: "Exchange") -> None:
        self._site = site
        self._exchange = exchange
        site.unattended.add(self)
        if exchange.deadline is not None:
            site.deadlines.watch(self, exchange.deadline)
        exchange.hand_over(self)

    def on_deadline(self, _now: float) -> None:
        """The time of the request is over; part of Mortal."""
        self._exchange.cancel()
        self._over()

    # Client

    def write_whole(self, _exchange: "Exchange", _head: Head, _body: bytes) -> None:
        """Part of Client."""
        self._over()

    def write_start(self, _exchange: "Exchange", _head: Head, _body: bytes) -> None:
        """Part of Client."""

    def write_more(self, _exchange: "Exchange", _body: bytes) -> bool:
        """Nobody reads, so nobody reads slowly; part of Client."""
        return True

    def write_end(self, _exchange: "Exchange", _body: bytes, _trailers: bytes) -> None:
        """Part of Client."""
        self._over()

    def body_taken(self) -> None:
        """Part of Client; the body is complete."""

    def cut(self) -> None:
        """Part of Client."""
        self._over()

    def read_head(self, encoded: bytes) -> Head:
        """Part of Client."""
        return self._site.heads.get(encoded)

    def now(self) -> float:
        """Part of Client."""
        return self._site.deadlines.now()

    def _over(self) -> None:
        self._site.deadlines.forget(self)
        self._site.unattended.discard(self)
        self._site.settled()
