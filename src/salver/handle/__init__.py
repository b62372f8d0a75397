"""Calling deployments: handles, responses, and the router that every caller has. Knows no user code and no HTTP."""

from salver.handle.handle import DeploymentHandle
from salver.handle.response import DeploymentResponse
from salver.handle.response_generator import DeploymentResponseGenerator

__all__ = ["DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator"]
