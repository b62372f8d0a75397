"""What routers that users write subclass, and what they are shown: requests and replicas."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from salver.handle.policies.base import load_of
from salver.handle.policies.locality import Place
from salver.handle.policies.prefix import arguments_of
from salver.lib.clock import wall_time_s
from salver.schema.ids import DeploymentID, ReplicaID

if TYPE_CHECKING:
    from salver.handle.channel import Channel
    from salver.handle.outgoing import Outgoing

MAX_NUM_ROUTING_TASKS = 50
CHOICE_TIMEOUT_S = 1.0


class RequestMetadata(NamedTuple):
    """What is known of a request besides its arguments."""

    request_id: str
    internal_request_id: str
    call_method: str
    route: str
    is_http_request: bool
    multiplexed_model_id: str
    session_id: str


class PendingRequest:
    """A request that waits for a replica.

    Attributes:
        created_at: Wall-clock seconds when it came.
        future: Settled with the replica that it goes to.
        routing_context: The router's own notes about it.
        resolved: Its arguments are values: a request waits for those of other calls before it is routed.
    """

    resolved = True

    def __init__(self, outgoing: "Outgoing") -> None:
        described = outgoing.describe()
        self.metadata = RequestMetadata(
            described.request_id,
            f"{described.request_id}/{outgoing.order}",
            described.call_method,
            described.route,
            described.is_http_request,
            outgoing.hints.multiplexed_model_id,
            outgoing.hints.session_id,
        )
        self.created_at = wall_time_s()
        self.future: Future[RunningReplica] = Future()
        self.routing_context = SimpleNamespace()
        self._outgoing = outgoing

    @property
    def args(self) -> tuple[Any, ...]:
        """Return its positional arguments, unpickled for the router; over HTTP an `HttpRequest`."""
        return self._arguments[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Return its arguments by name, likewise."""
        return self._arguments[1]

    @cached_property
    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments_of(self._outgoing)


class RunningReplica:
    """A replica that takes requests."""

    is_cross_language = False

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        entry = channel.entry
        self.replica_id = entry.replica
        self.actor_id = entry.replica.unique_id
        self.node_id = entry.node_id
        self.availability_zone = entry.availability_zone or None
        self.backend_http_endpoint = None
        self.max_ongoing_requests = entry.max_ongoing_requests
        self.multiplexed_model_ids = frozenset(entry.multiplexed_model_ids)
        self.routing_stats: Mapping[str, Any] = entry.routing_stats
        self.replica_metadata: Mapping[str, Any] = entry.metadata

    @property
    def queue_len(self) -> int:
        """Return how many requests it has: this process's exactly, those of others when it answered last."""
        return load_of(self._channel)

    @property
    def has_room(self) -> bool:
        """Say whether it may be sent a request now, as far as is known here."""
        return self._channel.has_room

    async def get_queue_len(self, *, deadline_s: float = 0.0) -> int:
        """Return `queue_len`; nobody is asked, whatever the deadline."""
        return self.queue_len

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunningReplica) and other.replica_id == self.replica_id

    def __hash__(self) -> int:
        return hash(self.replica_id)

    def __repr__(self) -> str:
        return f"RunningReplica({self.replica_id})"


class QueueLengths:
    """How many requests each replica has."""

    def __init__(self, router: "RequestRouter") -> None:
        self._router = router

    def get(self, replica_id: ReplicaID) -> int | None:
        """Return a replica's number, or None for one that is gone."""
        replica = self._router.curr_replicas.get(replica_id)
        return None if replica is None else replica.queue_len


class Caller(NamedTuple):
    """Whom a router works for.

    Attributes:
        deployment: Whose replicas it chooses among.
        place: Where this process is.
        num_pending: Tells how many requests wait.
    """

    deployment: DeploymentID
    place: Place
    num_pending: Callable[[], int]


class RequestRouter(ABC):
    """Chooses replicas for the requests of one process to one deployment; subclass it and name it in
    `request_router_config`.

    Everything is called in a thread of its own with its own event loop, one method at a time between awaits.
    """

    queue_len_response_deadline_s: ClassVar[float] = 0.1
    max_queue_len_response_deadline_s: ClassVar[float] = 1.0
    max_num_routing_tasks_cap: ClassVar[int] = MAX_NUM_ROUTING_TASKS
    choice_timeout_s: ClassVar[float] = CHOICE_TIMEOUT_S
    """A choice that takes longer is given up."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._curr_replicas: Mapping[ReplicaID, RunningReplica] = {}
        self.replica_queue_len_cache = QueueLengths(self)

    @abstractmethod
    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas that may have a request, best first; the first with room for it gets it.

        Asked with all replicas first. If none that was named has room but others have, it is asked again with those;
        an empty list then lets the request wait for those that were named.
        """

    @property
    def curr_replicas(self) -> Mapping[ReplicaID, RunningReplica]:
        """Return all replicas that take requests."""
        return self._curr_replicas

    @property
    def deployment_id(self) -> DeploymentID:
        """Return the deployment whose replicas it chooses among."""
        return self._caller.deployment

    @property
    def app_name(self) -> str:
        """Return the application's name."""
        return self._caller.deployment.app_name

    @property
    def num_pending_requests(self) -> int:
        """Return how many requests wait."""
        return self._caller.num_pending()

    @property
    def max_num_routing_tasks(self) -> int:
        """Return for how many requests it chooses at once."""
        return max(1, min(self.max_num_routing_tasks_cap, 2 * len(self._curr_replicas)))

    def supports_rejection_protocol(self) -> bool:
        """Return True: a replica that is full refuses, and the request goes elsewhere."""
        return True

    def select_available_replicas(self, candidates: list[RunningReplica] | None = None) -> list[RunningReplica]:
        """Return those of some replicas, or of all, that have room."""
        return [each for each in (self._curr_replicas.values() if candidates is None else candidates) if each.has_room]

    # Hooks. What they return does not matter.

    def initialize_state(self, *args: Any, **kwargs: Any) -> Any:
        """Take `request_router_kwargs`; called once, before everything else. It may be `async`."""
        if args or kwargs:
            raise TypeError(f"{type(self).__name__} takes no request_router_kwargs, got {', '.join(kwargs)}")

    def update_replicas(self, replicas: list[RunningReplica]) -> None:  # noqa: B027
        """Take note of the replicas there are, and of their statistics, from now on."""

    def on_request_routed(  # noqa: B027
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        """Take note of where a request went; `result` is the `RunningReplica`."""

    def on_send_request(self, replica_id: ReplicaID) -> None:  # noqa: B027
        """Take note that a replica was sent a request."""

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:  # noqa: B027
        """Take note that a request is over, however it ended."""

    def on_new_queue_len_info(self, replica_id: ReplicaID, queue_len_info: int) -> None:  # noqa: B027
        """Take note of how many requests a replica has."""

    def decrement_queue_len_cache(self, replica_id: ReplicaID) -> None:  # noqa: B027
        """Take note that a replica has a request less."""

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:  # noqa: B027
        """Take note that a replica which could not be reached is gone for good."""

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:  # noqa: B027
        """Take note that the connection to a replica broke."""
