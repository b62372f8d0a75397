"""The routing table: the longest prefix wins. Pure."""

from typing import NamedTuple

from salver.schema.topics import Route, Routes


class Match(NamedTuple):
    """Where a path leads.

    Attributes:
        root_path: What the application sees as its mount point.
    """

    route: Route
    root_path: str


class RouteTable:
    """Finds the application for a path.

    Args:
        routes: Prefixes and their applications.
        root_path: A prefix that a proxy in front of this one leaves on paths; it is taken off before matching.

    Attributes:
        by_prefix: Application by prefix.
    """

    def __init__(self, routes: Routes, root_path: str = "") -> None:
        self._root_path = root_path.rstrip("/")
        self._matches = {
            route.prefix: Match(route, self._root_path + (route.prefix if route.prefix != "/" else ""))
            for route in routes.routes
        }
        self.by_prefix = {route.prefix: route.app_name for route in routes.routes}

    def match(self, path: str) -> Match | None:
        """Return the longest prefix of whole path segments, or None."""
        matches = self._matches
        root = self._root_path
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        while path:
            found = matches.get(path)
            if found is not None:
                return found
            path = path[: max(0, path.rfind("/"))]
        return matches.get("/")
