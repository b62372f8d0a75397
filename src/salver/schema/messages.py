"""All that crosses a process border besides requests: what one process asks of or tells another.

Controller, proxies, replicas, agents and drivers are strangers that meet here only.
"""

from typing import Any

import msgspec

from salver.schema.application import ApplicationSpec, Preload
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID, ReplicaID, ReplicaRank
from salver.schema.status import ServeStatus
from salver.schema.topics import TopicValue


class Message(msgspec.Struct, tag=True, frozen=True):
    """Base of everything that is sent with `Peer.ask` or `Peer.tell`."""


class Done(Message, frozen=True):
    """The answer where there is nothing to say."""


# ── anybody → controller ────────────────────────────────────────────────────────────────────────────────────────────


class Subscribe(Message, frozen=True):
    """Send the topic's value now and at each change."""

    topic: str


class Unsubscribe(Message, frozen=True):
    """Stop sending the topic."""

    topic: str


class Snapshot(Message, frozen=True):
    """The whole value of a topic; a later version replaces an earlier one."""

    topic: str
    version: int
    value: TopicValue


class Deploy(Message, frozen=True):
    """Make this application the wish; answered when the wish is saved, long before it is fulfilled.

    Attributes:
        others: Wanted together with it, or none of them.
    """

    application: ApplicationSpec
    others: tuple[ApplicationSpec, ...] = ()


class BuildAndDeploy(Message, frozen=True, kw_only=True):
    """Build an application from an import path in a process of its own, then deploy it."""

    import_path: str
    arguments: dict[str, str]
    name: str
    route_prefix: str | None
    preload: Preload


class Delete(Message, frozen=True):
    """Drain and remove an application; answered when it is gone. An unknown name is no error."""

    name: str


class GetStatus(Message, frozen=True):
    """Ask for the instance's status."""


class StatusReport(Message, frozen=True):
    """The answer to GetStatus."""

    status: ServeStatus


class FindApplication(Message, frozen=True):
    """Ask which deployment is the ingress of an application."""

    name: str


class ApplicationFound(Message, frozen=True):
    """The answer to FindApplication; `ingress` is None for an unknown application."""

    ingress: DeploymentID | None
    deployments: tuple[str, ...] = ()


class Shutdown(Message, frozen=True):
    """Drain and remove everything; answered when all replicas and proxies are gone."""


# ── started processes → controller ──────────────────────────────────────────────────────────────────────────────────


class Built(Message, frozen=True):
    """A builder has evaluated `module:app`."""

    name: str
    application: ApplicationSpec


class BuildError(Message, frozen=True):
    """A builder could not; the reason is written for the user, with their own traceback where their code raised."""

    name: str
    reason: str


class ReplicaJoined(Message, frozen=True):
    """A replica's process runs; it constructs the user's code once it is told its rank.

    Attributes:
        rank: The rank that an earlier controller told it; None for one that waits for its first.
    """

    replica: ReplicaID
    rank: ReplicaRank | None = None


class ReplicaReady(Message, frozen=True):
    """A replica answers requests at this address; told to each controller that there is in its life.

    Attributes:
        draining: An earlier controller told it to take no new requests.
        rank: The rank that it was told last.
    """

    replica: ReplicaID
    address: str
    draining: bool = False
    rank: ReplicaRank | None = None


class ReplicaReport(Message, frozen=True, kw_only=True):
    """What a replica says of itself; None where nothing has changed since the last time.

    Attributes:
        multiplexed_model_ids: The models that are loaded or being loaded, in order.
        routing_stats: What the user's `record_routing_stats` returned.
        autoscaling_stats: What the user's `record_autoscaling_stats` returned.
        metadata: What the user's `record_replica_metadata` returned.
    """

    replica: ReplicaID
    multiplexed_model_ids: tuple[str, ...] | None = None
    routing_stats: dict[str, float] | None = None
    autoscaling_stats: dict[str, float] | None = None
    metadata: dict[str, Any] | None = None


class ReplicaHealth(Message, frozen=True, kw_only=True):
    """What came of a replica's health check; told after each one, and while the event loop is held.

    Attributes:
        failures: Failed checks in a row.
        reason: What the last one raised, or where the event loop is held.
        loop_held_s: How long user code has held the event loop by now.
    """

    replica: ReplicaID
    failures: int
    reason: str = ""
    loop_held_s: float = 0.0


class ReplicaFailed(Message, frozen=True):
    """A replica's user code failed to start; the process exits next."""

    replica: ReplicaID
    traceback: str


class ProxyReady(Message, frozen=True):
    """A proxy has its routes and accepts connections."""


class ProxyLeaving(Message, frozen=True):
    """A proxy was told to end: it accepts nobody new, finishes what it has, and exits."""


# ── controller → replica, proxy ─────────────────────────────────────────────────────────────────────────────────────


class Drain(Message, frozen=True):
    """Take no new requests; answered when the last one is finished."""


class Ranked(Message, frozen=True):
    """Be this one from now on; answered when the user's `reconfigure`, if it takes a rank, has returned."""

    rank: ReplicaRank
    world_size: int


class Reconfigure(Message, frozen=True, kw_only=True):
    """Change these options in place; answered when the user's `reconfigure` has returned."""

    max_ongoing_requests: int
    user_config: Any
    user_config_changed: bool


# ── controller ↔ agent (local engine) ───────────────────────────────────────────────────────────────────────────────


class StartProcess(Message, frozen=True, kw_only=True):
    """Start a process; see `engine.base.ProcessSpec` for the fields."""

    name: str
    entry: str
    payload: bytes
    preload: Preload | None
    resources: dict[str, float]
    env: dict[str, str]
    listeners: tuple[str, ...]
    note: bytes = b""


class ProcessStarted(Message, frozen=True):
    """The process runs."""

    name: str
    pid: int
    node_id: str


class SignalProcess(Message, frozen=True):
    """Ask a process to stop (SIGTERM), or end it and its children at once (SIGKILL)."""

    name: str
    kill: bool


class ReleasePreload(Message, frozen=True):
    """No further process will ask for this preload; its zygote may go."""

    preload: Preload


class ProcessExited(Message, frozen=True):
    """A process is gone and its resources are free again."""

    name: str
    exit_code: int | None
    signal: int | None
    last_output: str = ""


class GetProcesses(Message, frozen=True):
    """Ask which of the processes that were ordered live."""


class LivingProcess(msgspec.Struct, frozen=True, array_like=True):
    """A process that was ordered and lives; see `engine.base.Living`."""

    name: str
    pid: int
    note: bytes


class Processes(Message, frozen=True):
    """The answer to GetProcesses."""

    node_id: str
    processes: tuple[LivingProcess, ...]


class GetNodes(Message, frozen=True):
    """Ask for the nodes and what they have free."""


class NodeReport(msgspec.Struct, frozen=True):
    """One node."""

    node_id: str
    total: dict[str, float]
    free: dict[str, float]


class Nodes(Message, frozen=True):
    """The answer to GetNodes; also told when it changes."""

    nodes: tuple[NodeReport, ...]


# ── agent ↔ driver ──────────────────────────────────────────────────────────────────────────────────────────────────


class AgentOptions(Message, frozen=True, kw_only=True):
    """All an agent is told when it is started."""

    instance_dir: str
    http: HTTPOptions
    proxy: bool
    num_cpus: float | None
    num_gpus: float | None
    resources: dict[str, float]
    strict_cpus: bool
    attached: bool
    expose_tracebacks: bool


class AgentReady(Message, frozen=True):
    """The instance's controller can be reached."""

    controller_address: str
    http_host: str | None
    http_port: int | None
    pid: int


class AgentFailed(Message, frozen=True):
    """The instance could not start."""

    reason: str


class Output(Message, frozen=True):
    """Lines that a process wrote."""

    source: str
    lines: tuple[str, ...]


class Notice(Message, frozen=True):
    """One clear line for the person at the terminal."""

    text: str


class InstanceEnded(Message, frozen=True):
    """The instance stops by itself; the reason is for the person at the terminal."""

    reason: str


class StopInstance(Message, frozen=True):
    """End every process of the instance and remove its directory; answered just before the agent exits."""


AnyMessage = (
    Done
    | Subscribe
    | Unsubscribe
    | Snapshot
    | Deploy
    | BuildAndDeploy
    | Delete
    | GetStatus
    | StatusReport
    | FindApplication
    | ApplicationFound
    | Shutdown
    | Built
    | BuildError
    | ReplicaJoined
    | ReplicaReady
    | ReplicaReport
    | ReplicaHealth
    | ReplicaFailed
    | ProxyReady
    | ProxyLeaving
    | Drain
    | Ranked
    | Reconfigure
    | StartProcess
    | ProcessStarted
    | SignalProcess
    | ReleasePreload
    | ProcessExited
    | GetProcesses
    | Processes
    | GetNodes
    | Nodes
    | AgentOptions
    | AgentReady
    | AgentFailed
    | Output
    | Notice
    | InstanceEnded
    | StopInstance
)
