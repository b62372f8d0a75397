"""Topics: whole values that the controller publishes, and who subscribes to them keeps."""

from typing import Any

import msgspec

from salver.schema.application import RouterSpec
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.status import ServeStatus

ROUTES_TOPIC = "routes"
STATUS_TOPIC = "status"


def replicas_topic(deployment: DeploymentID) -> str:
    """Return the topic that carries the live replicas of a deployment."""
    return f"replicas/{deployment.path}"


class Route(msgspec.Struct, frozen=True, array_like=True):
    """Where requests under a prefix go.

    Attributes:
        max_request_body_bytes: Longest body of a request; None for what the proxy's own options say.
    """

    prefix: str
    app_name: str
    ingress: DeploymentID
    max_request_body_bytes: int | None = None


class Routes(msgspec.Struct, frozen=True, tag="routes"):
    """Value of the routes topic."""

    routes: tuple[Route, ...] = ()


class ReplicaEntry(msgspec.Struct, frozen=True, array_like=True):
    """A replica that takes requests.

    Attributes:
        multiplexed_model_ids: The models that it has loaded or loads, in order.
        routing_stats: What the user's `record_routing_stats` returned last.
        metadata: What the user's `record_replica_metadata` returned.
        availability_zone: Of its node; "" where that is not known.
    """

    replica: ReplicaID
    address: str
    node_id: str
    max_ongoing_requests: int
    multiplexed_model_ids: tuple[str, ...] = ()
    routing_stats: dict[str, float] = {}
    metadata: dict[str, Any] = {}
    availability_zone: str = ""


class Replicas(msgspec.Struct, frozen=True, tag="replicas", kw_only=True):
    """Value of a deployment's replicas topic.

    Attributes:
        request_priorities: Waiting requests are served by priority.
        unavailable: Why callers should not wait while `replicas` is empty; None while waiting makes sense.
        router: How callers choose among them; None for two choices.
    """

    replicas: tuple[ReplicaEntry, ...] = ()
    max_queued_requests: int = -1
    backpressure_status: int = 503
    backpressure_retry_after_s: float | None = None
    request_priorities: bool = False
    unavailable: str | None = None
    router: RouterSpec | None = None


class Status(msgspec.Struct, frozen=True, tag="status"):
    """Value of the status topic."""

    status: ServeStatus


TopicValue = Routes | Replicas | Status
