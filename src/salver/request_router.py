"""What routers that choose replicas by rules of their own are made of; see docs/routing.md."""

from salver.handle.outgoing import HttpRequest
from salver.handle.request_router.api import PendingRequest, RequestRouter, RunningReplica
from salver.handle.request_router.builtin import (
    ConsistentHashRouter,
    LeastLoadedRouter,
    PowerOfTwoChoicesRequestRouter,
    PrefixAffinityRouter,
    RoundRobinRouter,
)
from salver.handle.request_router.mixins import FIFOMixin, LocalityMixin, MultiplexMixin
from salver.schema.ids import ReplicaID

__all__ = [
    "ConsistentHashRouter",
    "FIFOMixin",
    "HttpRequest",
    "LeastLoadedRouter",
    "LocalityMixin",
    "MultiplexMixin",
    "PendingRequest",
    "PowerOfTwoChoicesRequestRouter",
    "PrefixAffinityRouter",
    "ReplicaID",
    "RequestRouter",
    "RoundRobinRouter",
    "RunningReplica",
]
