"""From a wish to a process: what a replica's process is told and what it needs in memory. Pure."""

from math import ceil

import msgspec

from salver.controller.desired import Wish
from salver.controller.health import silence_allowed_s
from salver.controller.placement import resources_of
from salver.engine.base import ProcessSpec
from salver.schema.application import Preload
from salver.schema.ids import ReplicaID
from salver.schema.options import ActorOptions, AutoscalingConfig, RequestRouterConfig
from salver.schema.process_payloads import ReplicaNote, ReplicaPayload

REPLICA_ENTRY = "salver.processes.replica:main"
THREADS_VARIABLE = "OMP_NUM_THREADS"


def replica_process(wish: Wish, replica: ReplicaID, *, controller_address: str, expose_tracebacks: bool) -> ProcessSpec:
    """Return the process that runs a replica."""
    spec, application = wish.spec, wish.application
    options = spec.options
    routing = options.request_router_config or RequestRouterConfig()
    scaling = options.autoscaling_config or AutoscalingConfig()
    payload = ReplicaPayload(
        controller_address=controller_address,
        replica=replica,
        code=spec.code,
        arguments=spec.arguments,
        max_ongoing_requests=options.max_ongoing_requests,
        num_cpus=options.ray_actor_options.num_cpus,
        user_config=options.user_config,
        health_check_period_s=options.health_check_period_s,
        health_check_timeout_s=options.health_check_timeout_s,
        code_version=application.version,
        expose_tracebacks=expose_tracebacks,
        routing_stats_period_s=routing.request_routing_stats_period_s,
        routing_stats_timeout_s=routing.request_routing_stats_timeout_s,
        autoscaling_stats_period_s=scaling.metrics_interval_s,
    )
    resources = resources_of(options.ray_actor_options)
    silence_s = silence_allowed_s(options.health_check_period_s, options.health_check_timeout_s)
    note = ReplicaNote(replica, application.version, options.graceful_shutdown_timeout_s, silence_s, resources)
    return ProcessSpec(
        name=process_name(replica),
        entry=REPLICA_ENTRY,
        payload=msgspec.msgpack.encode(payload),
        preload=preload_for(application.preload, options.ray_actor_options),
        resources=resources,
        note=msgspec.msgpack.encode(note),
    )


def process_name(replica: ReplicaID) -> str:
    """Return the name of a replica's process, as people see it before its output."""
    return f"{replica.deployment_id.name}#{replica.unique_id}"


def number_in(name: str) -> int:
    """Return the number at the end of a process's name, as in "proxy-3"."""
    return int(name.rpartition("-")[2])


def preload_for(preload: Preload, options: ActorOptions) -> Preload:
    """Return a preload with the environment that a replica's options ask for.

    Numeric libraries read their number of threads when they are imported, so it is part of the preload.
    """
    given = options.runtime_env.get("env_vars") or {}
    threads = {THREADS_VARIABLE: str(max(1, ceil(options.num_cpus)))}
    texts = {str(name): str(value) for name, value in given.items()}
    return msgspec.structs.replace(preload, env={**threads, **preload.env, **texts})
