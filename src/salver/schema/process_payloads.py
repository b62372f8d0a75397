"""What each kind of process is told when it is started, and the notes by which a new controller knows it again."""

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
    health_check_period_s: float
    health_check_timeout_s: float
    code_version: str
    expose_tracebacks: bool
    routing_stats_period_s: float
    routing_stats_timeout_s: float
    autoscaling_stats_period_s: float


class ProxyNote(msgspec.Struct, frozen=True, tag="proxy"):
    """Of a proxy.

    Attributes:
        slot: Which of the instance's proxies it is.
    """

    slot: int


class ReplicaNote(msgspec.Struct, frozen=True, tag="replica"):
    """Of a replica.

    Attributes:
        drain_timeout_s: How long it may finish what it has.
        silence_allowed_s: Nothing may be heard of it for so long before something may be wrong.
        resources: What it holds, by name.
    """

    replica: ReplicaID
    version: str
    drain_timeout_s: float
    silence_allowed_s: float
    resources: dict[str, float]


class BuilderNote(msgspec.Struct, frozen=True, tag="builder"):
    """Of a builder: the application that it builds."""

    application: str


Note = ProxyNote | ReplicaNote | BuilderNote
