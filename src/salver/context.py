"""What code knows of where it runs: its replica, and the request that it works on."""

from salver.handle.request_context import RequestContext
from salver.handle.request_context import RequestContext as _RequestContext
from salver.handle.request_context import current_request as _get_serve_request_context
from salver.handle.request_context import request_variable as _serve_request_context
from salver.runtime.context import ReplicaContext
from salver.schema.ids import ReplicaRank

__all__ = [
    "ReplicaContext",
    "ReplicaRank",
    "RequestContext",
    "_RequestContext",
    "_get_serve_request_context",
    "_serve_request_context",
]
