"""States of things and what they mean; what `serve.status()` returns."""

from enum import StrEnum
from typing import Any

import msgspec


class ApplicationStatus(StrEnum):
    """What an application is doing."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
    """What a deployment is doing."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class DeploymentStatusTrigger(StrEnum):
    """Why a deployment has its status."""

    UNSPECIFIED = "UNSPECIFIED"
    CONFIG_UPDATE_STARTED = "CONFIG_UPDATE_STARTED"
    CONFIG_UPDATE_COMPLETED = "CONFIG_UPDATE_COMPLETED"
    UPSCALE_COMPLETED = "UPSCALE_COMPLETED"
    DOWNSCALE_COMPLETED = "DOWNSCALE_COMPLETED"
    AUTOSCALING = "AUTOSCALING"
    REPLICA_STARTUP_FAILED = "REPLICA_STARTUP_FAILED"
    HEALTH_CHECK_FAILED = "HEALTH_CHECK_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """Where a replica is in its life."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"


class ProxyStatus(StrEnum):
    """What a proxy is doing."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class ReplicaDetails(msgspec.Struct, kw_only=True):
    """One replica.

    Attributes:
        pid: Its process; None until it runs.
        multiplexed_model_ids: The models that it has loaded or loads, in order.
        routing_stats: What the user's `record_routing_stats` returned last.
        metadata: What the user's `record_replica_metadata` returned.
    """

    replica_id: str
    state: ReplicaState
    node_id: str | None = None
    pid: int | None = None
    multiplexed_model_ids: tuple[str, ...] = ()
    routing_stats: dict[str, float] = {}
    metadata: dict[str, Any] = {}


class DeploymentStatusOverview(msgspec.Struct, kw_only=True):
    """A deployment in one look.

    Attributes:
        replicas: Each of its replicas; only in what `serve.status()` returns, not in what is pushed at each change.
    """

    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    replica_states: dict[ReplicaState, int]
    message: str
    replicas: tuple[ReplicaDetails, ...] = ()


class ApplicationStatusOverview(msgspec.Struct, kw_only=True):
    """An application in one look."""

    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployments: dict[str, DeploymentStatusOverview]
    route_prefix: str | None = None


class ServeStatus(msgspec.Struct, kw_only=True):
    """A whole instance in one look.

    Attributes:
        proxies: Status of each node's proxy, by node id; of several, by node id and number, as in "node#2".
        applications: Status of each application, by name.
        target_capacity: Percentage of the configured capacity that is kept, or None.
    """

    proxies: dict[str, ProxyStatus] = {}
    applications: dict[str, ApplicationStatusOverview] = {}
    target_capacity: float | None = None
