"""Options: what is allowed, what it becomes, and what is said of the rest."""

import math
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.schema.errors import InvalidOption
from salver.schema.options import (
    ActorOptions,
    AutoscalingConfig,
    BackpressureConfig,
    OptionChanges,
    Options,
    validated,
)

FIELDS = [field.name for field in msgspec.structs.fields(Options)]


def test_the_defaults_are_those_of_the_contract() -> None:
    options = validated({})
    assert options == Options()
    assert options.initial_replicas == 1
    assert (options.max_ongoing_requests, options.max_queued_requests) == (5, -1)
    assert (options.graceful_shutdown_wait_loop_s, options.graceful_shutdown_timeout_s) == (2.0, 20.0)
    assert (options.health_check_period_s, options.health_check_timeout_s) == (10.0, 30.0)
    assert options.max_constructor_retry_count == 20
    assert (options.rolling_update_percentage, options.max_surge_percent) == (0.2, 0)
    assert options.ray_actor_options == ActorOptions(num_cpus=1.0, num_gpus=0.0)


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        pytest.param("num_replicas", "2", 2, id="text as an integer"),
        pytest.param("num_replicas", 2.0, 2, id="whole float as an integer"),
        pytest.param("num_replicas", None, None, id="no number of replicas"),
        pytest.param("max_ongoing_requests", "7", 7, id="max_ongoing_requests as text"),
        pytest.param("max_queued_requests", -1, -1, id="no limit"),
        pytest.param("max_queued_requests", 1, 1, id="smallest queue"),
        pytest.param("graceful_shutdown_timeout_s", 0, 0.0, id="kill at once"),
        pytest.param("graceful_shutdown_timeout_s", "1.5", 1.5, id="text as a number"),
        pytest.param("rolling_update_percentage", 1, 1.0, id="all at once"),
        pytest.param("max_surge_percent", 100, 100, id="surge by all"),
        pytest.param("max_replicas_per_node", 100, 100, id="most per node"),
        pytest.param("max_replicas_per_node", None, None, id="any per node"),
        pytest.param("max_request_body_bytes", "0", 0, id="no bodies"),
        pytest.param("request_priorities", True, True, id="priorities"),
        pytest.param("max_request_body_bytes", None, None, id="any body"),
        pytest.param("backpressure_config", {"status_code": "429"}, BackpressureConfig(status_code=429), id="dict"),
        pytest.param("backpressure_config", BackpressureConfig(retry_after_s=1), BackpressureConfig(retry_after_s=1.0)),
        pytest.param("backpressure_config", None, None, id="no backpressure config"),
        pytest.param("user_config", {"a": [1, None, "x"]}, {"a": [1, None, "x"]}, id="JSON"),
        pytest.param("user_config", {1: (2, 3)}, {"1": [2, 3]}, id="as it is after travelling"),
    ],
)
def test_a_value_that_is_allowed_is_taken(name: str, given_value: object, expected: object) -> None:
    assert getattr(validated({name: given_value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(
            pytest.param("num_replicas", value, "an integer >= 1, 'auto' or None", id=f"num_replicas {value!r}")
            for value in (0, -1, 1.5, "many", "Auto", True)
        ),
        pytest.param("max_ongoing_requests", 0, "an integer >= 1", id="no requests"),
        pytest.param("max_ongoing_requests", 1.5, "an integer >= 1", id="fraction of a request"),
        *(
            pytest.param("max_queued_requests", value, "-1 (no limit) or a positive integer", id=f"queue {value!r}")
            for value in (0, -2, "0", None, "x")
        ),
        pytest.param("graceful_shutdown_wait_loop_s", -1, "a number >= 0", id="negative wait"),
        pytest.param("graceful_shutdown_timeout_s", -0.1, "a number >= 0", id="negative timeout"),
        pytest.param("graceful_shutdown_timeout_s", math.nan, "a number >= 0", id="not a number"),
        pytest.param("graceful_shutdown_timeout_s", None, "a number >= 0", id="None where there is a default"),
        pytest.param("health_check_period_s", 0, "a number > 0", id="no period"),
        pytest.param("health_check_timeout_s", 0, "a number > 0", id="no timeout"),
        pytest.param("max_constructor_retry_count", 0, "an integer >= 1", id="no tries"),
        pytest.param("max_replicas_per_node", 0, "an integer from 1 to 100 or None", id="none per node"),
        pytest.param("max_replicas_per_node", 101, "an integer from 1 to 100 or None", id="too many per node"),
        pytest.param("rolling_update_percentage", 0, "a number > 0 and <= 1", id="update nothing"),
        pytest.param("rolling_update_percentage", 1.1, "a number > 0 and <= 1", id="update more than all"),
        pytest.param("max_surge_percent", 101, "an integer from 0 to 100", id="surge by more than all"),
        pytest.param("max_surge_percent", -1, "an integer from 0 to 100", id="negative surge"),
        pytest.param("max_request_body_bytes", -1, "an integer >= 0 or None", id="negative body"),
        pytest.param("max_request_body_bytes", 1.5, "an integer >= 0 or None", id="fraction of a byte"),
        pytest.param("autoscaling_config", 3, "a dictionary or an instance of AutoscalingConfig", id="no dictionary"),
        pytest.param("backpressure_config", "x", "a dictionary or an instance of BackpressureConfig", id="text"),
    ],
)
def test_an_error_names_the_option_the_value_and_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        validated({name: value})
    assert str(caught.value) == f"Option '{name}' got {value!r}: expected {allowed}."
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (
            "autoscaling_config",
            {"max_replicas": 0},
            "'autoscaling_config.max_replicas' got 0: expected an integer >= 1",
        ),
        ("autoscaling_config", {"min_replicas": -1}, "'autoscaling_config.min_replicas' got -1: expected an integer"),
        ("autoscaling_config", {"initial_replicas": 1.5}, "'autoscaling_config.initial_replicas' got 1.5"),
        ("autoscaling_config", {"target_ongoing_requests": 0}, "expected a number > 0"),
        ("autoscaling_config", {"metrics_interval_s": 0}, "expected a number > 0"),
        ("autoscaling_config", {"look_back_period_s": -1}, "expected a number > 0"),
        ("autoscaling_config", {"upscaling_factor": 0}, "expected a number > 0 or None"),
        ("autoscaling_config", {"downscale_delay_s": -1}, "expected a number >= 0"),
        ("autoscaling_config", {"aggregation_function": "median"}, "expected 'mean', 'max' or 'min'"),
        (
            "backpressure_config",
            {"status_code": 500},
            "'backpressure_config.status_code' got 500: expected 503 or 429.",
        ),
        ("backpressure_config", {"retry_after_s": -1}, "'backpressure_config.retry_after_s' got -1: expected a number"),
        ("ray_actor_options", {"num_cpus": -1}, "'ray_actor_options.num_cpus' got -1: expected a number >= 0"),
        ("ray_actor_options", {"num_gpus": "x"}, "'ray_actor_options.num_gpus' got 'x'"),
        ("ray_actor_options", {"num_gpus": 1.5}, "expected a share of one GPU, like 0.5, or whole GPUs"),
        ("ray_actor_options", {"num_gpus": math.inf}, "expected a share of one GPU"),
        ("ray_actor_options", {"memory": -1}, "'ray_actor_options.memory' got -1: expected an integer >= 0"),
        ("ray_actor_options", {"memory": math.inf}, "'ray_actor_options.memory' got inf"),
        ("ray_actor_options", {"resources": {"tpu": -1}}, "expected a dictionary of numbers >= 0"),
        ("ray_actor_options", {"runtime_env": {"x": {1}}}, "runtime_env is not JSON-serializable"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_error_in_a_config_names_its_key(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        validated({name: config})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("autoscaling_config", AutoscalingConfig(min_replicas=-1)),
        ("backpressure_config", BackpressureConfig(status_code=500)),  # type: ignore[arg-type]
        ("ray_actor_options", ActorOptions(num_gpus=-1)),
    ],
    ids=["autoscaling_config", "backpressure_config", "ray_actor_options"],
)
def test_config_objects_are_checked_like_dictionaries(name: str, config: object) -> None:
    with pytest.raises(InvalidOption, match=f"Option '{name}"):
        validated({name: config})


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("autoscaling_config", "max_replica", "Did you mean 'max_replicas'?"),
        ("autoscaling_config", "target_num_ongoing_requests_per_replica", "Did you mean 'target_ongoing_requests'?"),
        ("autoscaling_config", "zzz", "Allowed: aggregation_function, downscale_delay_s"),
        ("backpressure_config", "status", "Did you mean 'status_code'?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(name: str, key: str, hint: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        validated({name: {key: 1}})
    assert f"Option '{name}' has no key '{key}'. {hint}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_replica", "Did you mean 'num_replicas'?"),
        ("max_concurrent_queries", "Did you mean 'max_ongoing_requests'?"),
        ("zzz", "Allowed: autoscaling_config"),
        ("route_prefix", ""),
        ("init_args", ""),
        ("is_driver_deployment", ""),
    ],
)
def test_an_unknown_option_is_a_type_error_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        validated({name: 1})
    assert f"unexpected keyword '{name}'" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("value", [None, "1"])
def test_version_was_removed(value: object) -> None:
    with pytest.raises(InvalidOption, match="Option 'version' may not be given"):
        validated({"version": value})


def test_max_ongoing_requests_may_not_be_none() -> None:
    with pytest.raises(InvalidOption, match=r"`max_ongoing_requests` must be non-null, got None\."):
        validated({"max_ongoing_requests": None})


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, b"bytes", 2**70], ids=["object", "set", "bytes", "huge"])
def test_a_user_config_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match="user_config is not JSON-serializable"):
        validated({"user_config": value})


def test_a_user_config_that_contains_itself_is_refused() -> None:
    config: list[Any] = []
    config.append(config)
    with pytest.raises(InvalidOption, match="user_config is not JSON-serializable"):
        validated({"user_config": config})


def test_a_user_config_is_copied() -> None:
    config = {"threshold": [1]}
    options = validated({"user_config": config})
    config["threshold"].append(2)
    assert options.user_config == {"threshold": [1]}


def test_actor_options_have_two_names() -> None:
    both = [validated({name: {"num_cpus": 2}}) for name in ("ray_actor_options", "actor_options")]
    assert both[0] == both[1]
    assert both[0].ray_actor_options.num_cpus == 2.0


def test_actor_options_are_given_under_one_of_their_names() -> None:
    with pytest.raises(InvalidOption, match="one option under two names"):
        validated({"ray_actor_options": {}, "actor_options": {}})


@pytest.mark.parametrize("value", [None, {}, {"num_cpus": None}], ids=["None", "empty", "None inside"])
def test_actor_options_that_say_nothing_are_the_defaults(value: object) -> None:
    assert validated({"ray_actor_options": value}).ray_actor_options == ActorOptions()


def test_actor_options_that_are_no_dictionary_are_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"ray_actor_options must be a dictionary, got 3 \(int\)"):
        validated({"ray_actor_options": 3})


def test_an_unknown_actor_option_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidOption) as caught:
        validated({"ray_actor_options": {"object_store_memory": 1}})
    assert str(caught.value) == (
        "Specifying 'object_store_memory' in ray_actor_options is not allowed. Allowed options: "
        "{'accelerator_type', 'memory', 'num_cpus', 'num_gpus', 'resources', 'runtime_env'}"
    )


@pytest.mark.parametrize("value", [0, 0.25, 1, 4, "0.5"])
def test_gpus_are_shares_of_one_or_whole_ones(value: Any) -> None:
    assert validated({"ray_actor_options": {"num_gpus": value}}).ray_actor_options.num_gpus == float(value)


def test_memory_may_be_a_float() -> None:
    assert validated({"ray_actor_options": {"memory": 1e9 / 3}}).ray_actor_options.memory == 333333333


def test_a_number_of_replicas_excludes_autoscaling() -> None:
    with pytest.raises(InvalidOption, match="Manually setting num_replicas is not allowed when autoscaling_config"):
        validated({"num_replicas": 2, "autoscaling_config": {"max_replicas": 3}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas (2) must be greater than or equal to min_replicas (3)!"),
        (
            {"min_replicas": 3, "max_replicas": 5, "initial_replicas": 2},
            "min_replicas (3) must be less than or equal to initial_replicas (2)!",
        ),
        (
            {"max_replicas": 2, "initial_replicas": 5},
            "max_replicas (2) must be greater than or equal to initial_replicas (5)!",
        ),
        ({"min_replicas": 2}, "max_replicas (1) must be greater than or equal to min_replicas (2)!"),
    ],
    ids=["max below min", "initial below min", "initial above max", "min above the default max"],
)
@pytest.mark.parametrize("make", [dict, AutoscalingConfig], ids=["dict", "object"])
def test_bounds_of_autoscaling_that_cross_are_refused(make: Any, config: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        validated({"autoscaling_config": make(**config)})
    assert str(caught.value) == message


def scaling_of(options: Options) -> tuple[int, int | None, float]:
    """Return the bounds and the target."""
    config = options.autoscaling_config
    assert config is not None
    return config.min_replicas, config.max_replicas, config.target_ongoing_requests


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, (1, 100, 2.0)),
        ({}, (1, 100, 2.0)),
        ({"min_replicas": 3}, (3, 100, 2.0)),
        ({"max_replicas": 7, "target_ongoing_requests": 1}, (1, 7, 1.0)),
        ({"max_replicas": 1}, (1, 1, 2.0)),
        ({"max_replicas": None}, (1, 100, 2.0)),
    ],
    ids=["None", "empty", "min", "max and target", "max as it is without auto", "max None"],
)
@pytest.mark.parametrize("make", [dict, AutoscalingConfig], ids=["dict", "object"])
def test_auto_widens_what_the_user_did_not_say(
    make: Any, config: dict[str, Any] | None, expected: tuple[int, int, float]
) -> None:
    options = validated({"num_replicas": "auto", "autoscaling_config": None if config is None else make(**config)})
    assert scaling_of(options) == expected
    assert options.max_ongoing_requests == 5


def test_autoscaling_without_auto_is_not_widened() -> None:
    assert scaling_of(validated({"autoscaling_config": {"target_ongoing_requests": 3}})) == (1, 1, 3.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1),
        ({"num_replicas": 3}, 3),
        ({"num_replicas": "auto"}, 1),
        ({"autoscaling_config": {"min_replicas": 0, "max_replicas": 4}}, 0),
        ({"autoscaling_config": {"min_replicas": 1, "initial_replicas": 3, "max_replicas": 4}}, 3),
    ],
    ids=["default", "fixed", "auto", "from zero", "initial"],
)
def test_a_new_deployment_starts_with(changes: dict[str, Any], expected: int) -> None:
    assert validated(changes).initial_replicas == expected


def test_validated_options_are_what_they_are_when_validated_again() -> None:
    options = validated({"num_replicas": "auto", "autoscaling_config": {"min_replicas": 2}, "user_config": {"a": 1}})
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=Options)
    assert again == options
    assert validated(msgspec.structs.asdict(options)) == options


@given(st.sampled_from(FIELDS), st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans()))
def test_whatever_is_given_the_answer_is_options_or_an_error_that_names_the_option(name: str, value: object) -> None:
    refusal = ""
    try:
        options = validated({name: value})
    except (InvalidOption, TypeError) as error:
        refusal = str(error)
    else:
        assert validated(msgspec.structs.asdict(options)) == options or value != value
    assert not refusal or name in refusal


def test_the_keywords_mirror_the_options() -> None:
    keywords = set(get_type_hints(OptionChanges))
    assert keywords == {*FIELDS, "actor_options"}
    assert not OptionChanges.__required_keys__


def test_options_have_a_json_schema_with_bounds_and_help() -> None:
    schema = msgspec.json.schema(Options)
    properties = schema["$defs"]["Options"]["properties"]
    assert set(properties) == set(FIELDS)
    assert properties["max_ongoing_requests"]["minimum"] == 1
    assert [name for name, each in properties.items() if not each.get("description")] == []
    assert set(schema["$defs"]) == {
        *("Options", "AutoscalingConfig", "BackpressureConfig", "RequestRouterConfig", "ActorOptions")
    }


def test_every_option_has_a_default() -> None:
    assert [field.name for field in msgspec.structs.fields(Options) if field.required] == []
    assert get_args(Options.__annotations__["max_ongoing_requests"])[0] is int
