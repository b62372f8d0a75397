"""The same replica for the same session."""

from salver.handle.request_router.builtin import ConsistentHashRouter

__all__ = ["ConsistentHashRouter"]
