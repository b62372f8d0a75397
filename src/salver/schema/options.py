"""Every option of a deployment, declared once: type, default, bounds and help.

`validated` turns what a user gave into an `Options`, or says which option is wrong, what was found and what is allowed.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from salver.schema.conversion import converted, json_value, nearest, struct_from
from salver.schema.errors import InvalidOption

PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]

AUTO_TARGET_ONGOING_REQUESTS = 2.0
AUTO_MAX_REPLICAS = 100


class BackpressureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an ingress answers when `max_queued_requests` is exceeded."""

    status_code: Literal[503, 429] = 503
    retry_after_s: NonNegativeFloat | None = None


class AutoscalingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and pace of automatic scaling."""

    min_replicas: Annotated[int, Meta(ge=0)] = 1
    initial_replicas: Annotated[int, Meta(ge=0)] | None = None
    max_replicas: Annotated[
        PositiveInt | None, Meta(description="1 where it is not given, 100 with num_replicas='auto'.")
    ] = None
    target_ongoing_requests: PositiveFloat = AUTO_TARGET_ONGOING_REQUESTS
    metrics_interval_s: PositiveFloat = 10.0
    look_back_period_s: PositiveFloat = 30.0
    smoothing_factor: PositiveFloat = 1.0
    upscale_smoothing_factor: PositiveFloat | None = None
    downscale_smoothing_factor: PositiveFloat | None = None
    upscaling_factor: PositiveFloat | None = None
    downscaling_factor: PositiveFloat | None = None
    upscale_delay_s: NonNegativeFloat = 30.0
    downscale_delay_s: NonNegativeFloat = 600.0
    downscale_to_zero_delay_s: NonNegativeFloat | None = None
    aggregation_function: Literal["mean", "max", "min"] = "mean"


class RequestRouterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How callers choose among a deployment's replicas."""

    request_router_class: Annotated[
        Any, Meta(description="A policy's name, an import path like 'module:Class', or the class.")
    ] = "salver.request_router:PowerOfTwoChoicesRequestRouter"
    request_router_kwargs: Annotated[
        dict[str, Any], Meta(description="The policy's arguments, or those of the class's initialize_state().")
    ] = {}
    request_routing_stats_period_s: Annotated[
        float, Meta(gt=0, description="Seconds between calls of the deployment's record_routing_stats().")
    ] = 10.0
    request_routing_stats_timeout_s: Annotated[float, Meta(gt=0, description="Seconds such a call may take.")] = 30.0
    initial_backoff_s: Annotated[
        float, Meta(ge=0, description="Accepted, unused: requests wait for an event, not for a time.")
    ] = 0.025
    backoff_multiplier: Annotated[float, Meta(ge=0, description="Accepted, unused.")] = 2.0
    max_backoff_s: Annotated[float, Meta(ge=0, description="Accepted, unused.")] = 0.5


class ActorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each replica's process needs."""

    num_cpus: NonNegativeFloat = 1.0
    num_gpus: NonNegativeFloat = 0.0
    memory: Annotated[int, Meta(ge=0, description="bytes")] = 0
    resources: dict[str, NonNegativeFloat] = {}
    accelerator_type: str | None = None
    runtime_env: dict[str, Any] = {}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options of a deployment, with their defaults."""

    num_replicas: Annotated[
        PositiveInt | Literal["auto"] | None, Meta(description="How many replicas, or 'auto' to scale with load.")
    ] = None
    max_ongoing_requests: Annotated[
        int, Meta(ge=1, description="Requests one replica works on at once; above it, it refuses.")
    ] = 5
    max_queued_requests: Annotated[
        int, Meta(ge=-1, description="Requests each caller may have waiting; -1 for no limit.")
    ] = -1
    request_priorities: Annotated[
        bool, Meta(description="Serve waiting requests by priority: the handle's option, the header Priority.")
    ] = False
    backpressure_config: Annotated[
        BackpressureConfig | None, Meta(description="Status and Retry-After when the queue is full.")
    ] = None
    autoscaling_config: Annotated[
        AutoscalingConfig | None, Meta(description="Bounds and pace of automatic scaling.")
    ] = None
    request_router_config: Annotated[
        RequestRouterConfig | None, Meta(description="How callers choose among the replicas.")
    ] = None
    user_config: Annotated[
        Any, Meta(description="JSON value handed to the class's reconfigure() at start and at each change.")
    ] = None
    graceful_shutdown_wait_loop_s: Annotated[
        float, Meta(ge=0, description="Seconds between looks whether a stopping replica is idle.")
    ] = 2.0
    graceful_shutdown_timeout_s: Annotated[
        float, Meta(ge=0, description="Seconds a stopping replica gets to finish before it is killed.")
    ] = 20.0
    health_check_period_s: Annotated[float, Meta(gt=0, description="Seconds between health checks.")] = 10.0
    health_check_timeout_s: Annotated[float, Meta(gt=0, description="Seconds a health check may take.")] = 30.0
    max_constructor_retry_count: Annotated[
        int, Meta(ge=1, description="Failed starts in a row before the deployment is given up.")
    ] = 20
    ray_actor_options: Annotated[
        ActorOptions, Meta(description="Resources of each replica; also spelled actor_options.")
    ] = ActorOptions()
    max_replicas_per_node: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None, Meta(description="At most this many replicas on one node.")
    ] = None
    rolling_update_percentage: Annotated[
        float, Meta(gt=0, le=1, description="Share of the replicas replaced at once in an update.")
    ] = 0.2
    max_surge_percent: Annotated[
        int, Meta(ge=0, le=100, description="Extra replicas an update may start first, in percent.")
    ] = 0
    max_request_body_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Longest body that an ingress is sent over HTTP; None for what http_options say."),
    ] = None

    @property
    def initial_replicas(self) -> int:
        """Return how many replicas a new deployment starts with."""
        scaling = self.autoscaling_config
        if scaling is None:
            return self.num_replicas if isinstance(self.num_replicas, int) else 1
        return scaling.min_replicas if scaling.initial_replicas is None else scaling.initial_replicas


class OptionChanges(TypedDict, total=False):
    """The options as keywords, for type checkers; a test holds it equal to `Options`."""

    num_replicas: int | Literal["auto"] | None
    max_ongoing_requests: int
    max_queued_requests: int
    request_priorities: bool
    backpressure_config: BackpressureConfig | Mapping[str, Any] | None
    autoscaling_config: AutoscalingConfig | Mapping[str, Any] | None
    request_router_config: RequestRouterConfig | Mapping[str, Any] | None
    user_config: Any
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    max_constructor_retry_count: int
    ray_actor_options: ActorOptions | Mapping[str, Any] | None
    actor_options: ActorOptions | Mapping[str, Any] | None
    max_replicas_per_node: int | None
    rolling_update_percentage: float
    max_surge_percent: int
    max_request_body_bytes: int | None


_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Options)}
_STRUCTS = {
    "autoscaling_config": AutoscalingConfig,
    "backpressure_config": BackpressureConfig,
    "request_router_config": RequestRouterConfig,
}
_QUEUED = "-1 (no limit) or a positive integer"


def validated(changes: Mapping[str, Any]) -> Options:
    """Return the options that the given changes and the defaults make together.

    Args:
        changes: Option names and the values a user gave; numbers may come as text, dicts in place of config objects.

    Raises:
        TypeError: A name that is no option; the message has the nearest known one.
        InvalidOption: A value that is not allowed, or options that exclude each other.
    """
    values = {name: _converted(name, value) for name, value in with_aliases(changes).items()}
    if isinstance(values.get("num_replicas"), int) and values.get("autoscaling_config") is not None:
        raise InvalidOption(
            "Manually setting num_replicas is not allowed when autoscaling_config is provided. "
            "Leave num_replicas out or set it to 'auto'."
        )
    return _with_replica_bounds(Options(**values))


def with_aliases(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes under their canonical names; an unknown name is a TypeError."""
    if "actor_options" in changes and "ray_actor_options" in changes:
        raise InvalidOption("'actor_options' and 'ray_actor_options' are one option under two names; give one.")
    renamed = {("ray_actor_options" if name == "actor_options" else name): value for name, value in changes.items()}
    for name in renamed:
        if name == "version":
            raise InvalidOption("Option 'version' may not be given: it was removed; every run is a version of its own.")
        if name not in _TYPES:
            raise TypeError(f"unexpected keyword '{name}': there is no such option.{nearest(name, _TYPES)}")
    return renamed


def _converted(name: str, value: Any) -> Any:
    if name == "ray_actor_options":
        return _actor_options(value)
    if name == "user_config":
        return json_value(name, value)
    if name == "max_ongoing_requests" and value is None:
        raise InvalidOption("`max_ongoing_requests` must be non-null, got None.")
    if name in _STRUCTS and value is not None:
        return _config(name, value)
    if name == "max_queued_requests":
        return _queue_limit(value)
    return converted(name, value, _TYPES[name])


def _config(name: str, value: Any) -> Any:
    config = struct_from(name, value, _STRUCTS[name])
    if not isinstance(config, RequestRouterConfig):
        return config
    kwargs = json_value(f"{name}.request_router_kwargs", config.request_router_kwargs)
    return msgspec.structs.replace(config, request_router_kwargs=kwargs)


def _queue_limit(value: Any) -> Any:
    limit = converted("max_queued_requests", value, _TYPES["max_queued_requests"], allowed=_QUEUED)
    if limit == 0:
        raise InvalidOption(f"Option 'max_queued_requests' got {value!r}: expected {_QUEUED}.")
    return limit


def _actor_options(value: Any) -> ActorOptions:
    if isinstance(value, ActorOptions):
        value = msgspec.structs.asdict(value)
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise TypeError(f"ray_actor_options must be a dictionary, got {value!r} ({type(value).__name__}).")
    known = sorted(field.name for field in msgspec.structs.fields(ActorOptions))
    for key in value:
        if key not in known:
            allowed = "{" + ", ".join(repr(each) for each in known) + "}"
            raise InvalidOption(f"Specifying '{key}' in ray_actor_options is not allowed. Allowed options: {allowed}")
    given = {key: each for key, each in value.items() if each is not None}
    if isinstance(memory := given.get("memory"), float) and isfinite(memory):
        given["memory"] = int(memory)
    if "runtime_env" in given:
        given["runtime_env"] = json_value("ray_actor_options.runtime_env", given["runtime_env"])
    options = struct_from("ray_actor_options", given, ActorOptions)
    _check_gpus(options.num_gpus)
    return options


def _check_gpus(num_gpus: float) -> None:
    if num_gpus > 1 and not num_gpus.is_integer():
        raise InvalidOption(
            f"Option 'ray_actor_options.num_gpus' got {num_gpus:g}: expected a share of one GPU, like 0.5, "
            "or whole GPUs."
        )


def _with_replica_bounds(options: Options) -> Options:
    """Settle how many replicas there may be, which `num_replicas="auto"` widens where the user did not say."""
    auto = options.num_replicas == "auto"
    scaling = options.autoscaling_config or (AutoscalingConfig() if auto else None)
    if scaling is None:
        return options
    if scaling.max_replicas is None:
        scaling = msgspec.structs.replace(scaling, max_replicas=AUTO_MAX_REPLICAS if auto else 1)
    _check_bounds(scaling)
    return msgspec.structs.replace(options, autoscaling_config=scaling)


def _check_bounds(scaling: AutoscalingConfig) -> None:
    low, high, first = scaling.min_replicas, scaling.max_replicas or 1, scaling.initial_replicas
    if high < low:
        raise InvalidOption(f"max_replicas ({high}) must be greater than or equal to min_replicas ({low})!")
    if first is not None and first < low:
        raise InvalidOption(f"min_replicas ({low}) must be less than or equal to initial_replicas ({first})!")
    if first is not None and first > high:
        raise InvalidOption(f"max_replicas ({high}) must be greater than or equal to initial_replicas ({first})!")
