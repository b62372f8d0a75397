"""The errors users catch, under the names they know."""

from salver.schema.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    InvalidOption,
    RemoteError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SalverError,
)

RayServeException = SalverError

__all__ = [
    "BackPressureError",
    "DeploymentUnavailableError",
    "InvalidOption",
    "RayServeException",
    "RemoteError",
    "ReplicaDiedError",
    "ReplicaUnavailableError",
    "RequestCancelledError",
    "RequestTimeoutError",
    "SalverError",
]
