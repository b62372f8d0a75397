"""Salver serves Python models and business logic over HTTP: decorate a class, bind it, run it.

    import salver as serve

    @serve.deployment
    class Hello:
        def __call__(self) -> str:
            return "Hello!"

    serve.run(Hello.bind())

Names are imported at their first use, because every process of Salver imports this package and needs little of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salver.api.application import Application
    from salver.api.connection import Connection, connect
    from salver.api.deployment import Deployment, deployment
    from salver.api.run_target import RunTarget
    from salver.api.verbs import (
        delete,
        get_app_handle,
        get_deployment_handle,
        run,
        run_many,
        shutdown,
        shutdown_async,
        start,
        status,
    )
    from salver.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
    from salver.runtime.batching import batch
    from salver.runtime.context import ReplicaContext, get_replica_context
    from salver.runtime.ingress import ingress
    from salver.runtime.multiplexing import get_multiplexed_model_id, multiplexed
    from salver.schema.http import HTTPOptions, ProxyLocation
    from salver.telemetry.traces import get_trace_context

__version__ = "0.1.0"

__all__ = [
    "Application",
    "Connection",
    "Deployment",
    "DeploymentHandle",
    "DeploymentResponse",
    "DeploymentResponseGenerator",
    "HTTPOptions",
    "ProxyLocation",
    "ReplicaContext",
    "RunTarget",
    "__version__",
    "batch",
    "connect",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_trace_context",
    "ingress",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]

_HOMES = {
    "Application": "salver.api.application",
    "Connection": "salver.api.connection",
    "connect": "salver.api.connection",
    "Deployment": "salver.api.deployment",
    "deployment": "salver.api.deployment",
    **dict.fromkeys(
        (
            *("delete", "get_app_handle", "get_deployment_handle", "run", "run_many"),
            *("shutdown", "shutdown_async", "start", "status"),
        ),
        "salver.api.verbs",
    ),
    "DeploymentHandle": "salver.handle",
    "DeploymentResponse": "salver.handle",
    "DeploymentResponseGenerator": "salver.handle",
    "ReplicaContext": "salver.runtime.context",
    "RunTarget": "salver.api.run_target",
    "get_replica_context": "salver.runtime.context",
    "batch": "salver.runtime.batching",
    "get_multiplexed_model_id": "salver.runtime.multiplexing",
    "get_trace_context": "salver.telemetry.traces",
    "ingress": "salver.runtime.ingress",
    "multiplexed": "salver.runtime.multiplexing",
    "HTTPOptions": "salver.schema.http",
    "ProxyLocation": "salver.schema.http",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'salver' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
