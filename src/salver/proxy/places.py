"""From request targets to those who answer them; the same target comes again and again, so results are kept."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

import httptools

from salver.handle.router import Router
from salver.proxy.routes import RouteTable
from salver.schema.ids import DeploymentID
from salver.schema.outcomes import Outcome, not_found

NOT_A_TARGET = Outcome(400, b"Bad Request: this target is no path.")

_MAX_CACHED = 4096
_MAX_CACHED_SIZE_BYTES = 512


class Place(NamedTuple):
    """Where a request goes.

    Attributes:
        path: The decoded path.
        raw_path: The path as it was sent.
        router: Leads to the application's ingress; None where there is no application.
        root_path: What the application sees as its mount point.
        prefix: The route's prefix.
        outcome: The answer where there is no application.
        is_own: The proxy itself may have an answer.
        max_body_size_bytes: Longest body of a request; None for no limit.
    """

    path: str
    raw_path: str
    router: Router | None = None
    root_path: str = ""
    prefix: str = ""
    outcome: Outcome | None = None
    is_own: bool = False
    max_body_size_bytes: int | None = None


class Places:
    """Finds the place of a target.

    Args:
        table: The routes; other routes need another `Places`.
        router_of: Returns the router of a deployment.
        max_body_size_bytes: Longest body for applications that do not say; None for no limit.
    """

    def __init__(
        self,
        table: RouteTable,
        router_of: Callable[[DeploymentID], Router],
        max_body_size_bytes: int | None = None,
    ) -> None:
        self.table = table
        self._max_body_size_bytes = max_body_size_bytes
        self._router_of = router_of
        self._cache: dict[bytes, Place] = {}

    def find(self, target: bytes) -> tuple[Place, bytes]:
        """Return the place of a target and the query."""
        if b"#" in target:
            target = target.partition(b"#")[0]
        if target.startswith(b"/"):
            raw, _, query = target.partition(b"?")
            return self._cache.get(raw) or self._look_up(raw), query
        if target == b"*":
            return self._look_up(target), b""
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return Place("", "", outcome=NOT_A_TARGET), b""
        if not url.schema:
            return Place("", "", outcome=NOT_A_TARGET), b""
        return self._look_up(url.path or b"/"), url.query or b""

    def _look_up(self, raw: bytes) -> Place:
        # What is not ASCII is refused, whatever its place.
        raw_path = raw.decode("latin-1")
        path = unquote(raw_path) if "%" in raw_path else raw_path
        is_own = path.startswith("/-/")
        match = self.table.match(path)
        if match is None:
            return Place(path, raw_path, outcome=not_found(path), is_own=is_own)
        route = match.route
        limit = self._max_body_size_bytes if route.max_request_body_bytes is None else route.max_request_body_bytes
        place = Place(
            path,
            raw_path,
            self._router_of(route.ingress),
            match.root_path,
            route.prefix,
            is_own=is_own,
            max_body_size_bytes=limit,
        )
        if len(raw) <= _MAX_CACHED_SIZE_BYTES:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[raw] = place
        return place
