"""What each kind of process is told when it is started: the payload of its `ProcessSpec`."""

from typing import Any

import msgspec

from salver.schema.application import CodeRef, Preload
from salver.schema.http import HTTPOptions
from salver.schema.ids import ReplicaID


class ControllerPayload(msgspec.Struct, frozen=True, kw_only=True):
    """To the controller.

    Attributes:
        proxy_listeners: For each proxy the name of its listening socket.
    """

    agent_address: str
    http: HTTPOptions
    proxy_listeners: tuple[str, ...]
    expose_tracebacks: bool
    strict_cpus: bool


class ProxyPayload(msgspec.Struct, frozen=True, kw_only=True):
    """To a proxy."""

    controller_address: str
    http: HTTPOptions
    listener: str


class BuilderPayload(msgspec.Struct, frozen=True, kw_only=True):
    """To a builder."""

    controller_address: str
    import_path: str
    module: str
    attribute: str
    arguments: dict[str, str]
    name: str
    route_prefix: str | None
    preload: Preload


class ReplicaPayload(msgspec.Struct, frozen=True, kw_only=True):
    """To a replica.

    Attributes:
        routing_stats_period_s: How often the user's `record_routing_stats` is asked.
        routing_stats_timeout_s: How long it may take.
        autoscaling_stats_period_s: How often the user's `record_autoscaling_stats` is asked.
    """

    controller_address: str
    replica: ReplicaID
    code: CodeRef
    arguments: bytes
    max_ongoing_requests: int
    num_cpus: float
    user_config: Any
    code_version: str
    expose_tracebacks: bool
    routing_stats_period_s: float
    routing_stats_timeout_s: float
    autoscaling_stats_period_s: float
