"""Calling deployments: handles, responses, and the router that every caller has. Knows no user code and no HTTP."""

from salver.handle.broadcast import DeploymentBroadcastResponse
from salver.handle.handle import DeploymentHandle
from salver.handle.response import DeploymentResponse
from salver.handle.response_generator import DeploymentResponseGenerator
from salver.handle.selection import ReplicaSelection

__all__ = [
    "DeploymentBroadcastResponse",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "ReplicaSelection",
]
