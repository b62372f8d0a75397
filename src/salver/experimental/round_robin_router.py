"""Each replica in its turn."""

from salver.handle.request_router.builtin import RoundRobinRouter

__all__ = ["RoundRobinRouter"]
