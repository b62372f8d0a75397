"""`@deployment`: descriptions that are checked when they are written, and never change."""

import copy
import pickle
from functools import partial
from typing import Any

import pytest

import salver as serve
from salver.api.application import Application, parts_of
from salver.api.deployment import Deployment, deployment
from salver.schema.errors import InvalidOption
from salver.schema.options import ActorOptions, AutoscalingConfig, BackpressureConfig


class Model:
    """Answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


class Callable7:
    """An instance can be served, too."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> int:
        """Answer."""
        return 7


# ── Making ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bare_decorator_makes_a_deployment_with_the_default_options() -> None:
    made = deployment(Model)
    assert (made.name, made.func_or_class, made.__doc__) == ("Model", Model, "Answers.")
    assert (made.num_replicas, made.max_ongoing_requests, made.max_queued_requests) == (1, 5, -1)
    assert made.backpressure_config == BackpressureConfig(status_code=503, retry_after_s=None)
    assert made.ray_actor_options == ActorOptions(num_cpus=1)
    assert made.user_config is None


def test_a_decorator_with_options_sets_them() -> None:
    @deployment(
        name="other",
        num_replicas=3,
        max_ongoing_requests=7,
        max_queued_requests=9,
        backpressure_config={"status_code": 429, "retry_after_s": 1.5},
        ray_actor_options={"num_cpus": 0.5},
        user_config={"a": 1},
    )
    class Decorated:
        """Words of the user."""

    assert (Decorated.name, Decorated.num_replicas) == ("other", 3)
    assert (Decorated.max_ongoing_requests, Decorated.max_queued_requests) == (7, 9)
    assert Decorated.backpressure_config == BackpressureConfig(status_code=429, retry_after_s=1.5)
    assert Decorated.ray_actor_options.num_cpus == 0.5
    assert Decorated.user_config == {"a": 1}
    assert Decorated.__doc__ == "Words of the user."


@pytest.mark.parametrize("make", [deployment, deployment(), serve.deployment], ids=["bare", "called", "shop window"])
def test_functions_and_classes_are_named_after_themselves(make: Any) -> None:
    assert make(double).name == "double"
    assert make(Model).name == "Model"


def test_what_was_decorated_before_takes_options_beside_it() -> None:
    assert deployment(Model, name="other", num_replicas=2).num_replicas == 2


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (partial(double, 2), "partial"),
        (Callable7(), "Callable7"),
        (lambda: 1, "<lambda>"),
        ("text".upper, "upper"),
    ],
    ids=["partial", "object", "lambda", "method"],
)
def test_whatever_can_be_called_can_be_a_deployment(code: Any, name: str) -> None:
    made = deployment(code)
    assert (made.name, made.func_or_class) == (name, code)
    assert hash(made) == hash(made.options())


@pytest.mark.parametrize(
    "code",
    [7, "name", object(), deployment(Model), deployment(Model).bind()],
    ids=["number", "text", "object", "deployment", "application"],
)
@pytest.mark.parametrize(
    "make",
    [deployment, deployment(name="x"), deployment(Model).options],
    ids=["bare", "with options", "options"],
)
def test_what_cannot_be_called_is_refused(make: Any, code: object) -> None:
    with pytest.raises(TypeError, match="must be called on a class or function"):
        make(code)


@pytest.mark.parametrize("name", ["", "with spaces", "ä", "a/b"], ids=["empty", "spaces", "letter", "slash"])
def test_any_text_without_a_hash_is_a_name(name: str) -> None:
    assert deployment(name=name)(Model).name == name
    assert deployment(Model).options(name=name).name == name


@pytest.mark.parametrize("make", [deployment, deployment(Model).options], ids=["deployment", "options"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": 7}, TypeError, "name must be a string"),
        ({"name": "a#b"}, InvalidOption, "'#' is not allowed"),
        ({"num_replicas": 0}, ValueError, "num_replicas"),
        ({"num_replicas": "many"}, ValueError, "num_replicas"),
        ({"max_ongoing_requests": None}, ValueError, "must be non-null"),
        ({"max_queued_requests": 0}, ValueError, "max_queued_requests"),
        ({"user_config": object()}, ValueError, "JSON-serializable"),
        ({"ray_actor_options": {"num_cpu": 1}}, ValueError, "num_cpu"),
        ({"num_replicas": 2, "autoscaling_config": {}}, ValueError, "Manually setting num_replicas is not allowed"),
        ({"version": None}, ValueError, "removed"),
        ({"num_replica": 2}, TypeError, "unexpected keyword 'num_replica'.*Did you mean 'num_replicas'"),
        ({"max_concurrent_queries": 2}, TypeError, "Did you mean 'max_ongoing_requests'"),
        ({"route_prefix": "/"}, TypeError, "unexpected keyword 'route_prefix'"),
        ({"init_args": ()}, TypeError, "unexpected keyword 'init_args'"),
        ({"is_driver_deployment": True}, TypeError, "unexpected keyword 'is_driver_deployment'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_refused_where_it_is_written(
    make: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_the_class_of_deployments_is_not_for_calling() -> None:
    with pytest.raises(RuntimeError, match="should not be called directly"):
        Deployment(Model)


def test_a_deployment_is_served_and_not_called() -> None:
    with pytest.raises(RuntimeError, match=r"Deployments cannot be constructed directly.*Model\.bind"):
        deployment(Model)()


@pytest.mark.parametrize("name", ["deploy", "delete", "get_handle", "url", "anything"])
def test_there_are_no_other_members(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(deployment(Model), name)


# ── Copies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_options_returns_a_copy_with_changes_and_keeps_the_rest() -> None:
    first = deployment(Model, name="first", num_replicas=3, user_config={"a": 1}, max_ongoing_requests=7)
    second = first.options(name="second", max_ongoing_requests=9)
    assert (second.name, second.num_replicas, second.user_config) == ("second", 3, {"a": 1})
    assert (second.max_ongoing_requests, first.max_ongoing_requests) == (9, 7)
    assert second.func_or_class is Model
    assert first.name == "first"


def test_options_may_set_other_code() -> None:
    other = deployment(Model, num_replicas=3).options(double)
    code: Any = other.func_or_class
    assert code is double
    assert (other.name, other.num_replicas) == ("Model", 3)


def test_dictionaries_of_options_are_replaced_as_a_whole() -> None:
    first = deployment(Model, ray_actor_options={"num_cpus": 2, "num_gpus": 1})
    assert first.options(ray_actor_options={"num_cpus": 3}).ray_actor_options == ActorOptions(num_cpus=3)


def test_both_names_of_the_actor_options_replace_each_other() -> None:
    first = deployment(Model, actor_options={"num_cpus": 2})
    assert first.options(ray_actor_options={"num_cpus": 3}).ray_actor_options.num_cpus == 3
    assert first.options(actor_options={"num_cpus": 4}).ray_actor_options.num_cpus == 4


def test_an_option_that_is_set_to_none_is_as_if_it_had_not_been_given() -> None:
    first = deployment(Model, user_config={"a": 1}, num_replicas=3)
    second = first.options(user_config=None, num_replicas=None)
    assert (second.user_config, second.num_replicas) == (None, 1)


def test_a_fixed_number_and_autoscaling_replace_each_other_and_the_last_counts() -> None:
    fixed = deployment(Model, num_replicas=3)
    scaled = fixed.options(autoscaling_config={"min_replicas": 2, "max_replicas": 5})
    assert (scaled.all_options.num_replicas, scaled.num_replicas) == (None, 2)
    again = scaled.options(num_replicas=4)
    assert (again.all_options.autoscaling_config, again.num_replicas) == (None, 4)


def test_auto_keeps_its_bounds_when_autoscaling_is_changed() -> None:
    auto = deployment(Model, num_replicas="auto").options(autoscaling_config={"min_replicas": 2})
    scaling = auto.all_options.autoscaling_config
    assert isinstance(scaling, AutoscalingConfig)
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 100)


def test_what_a_user_gave_may_change_later() -> None:
    config, resources = {"a": [1]}, {"tpu": 1.0}
    made = deployment(Model, user_config=config, ray_actor_options={"resources": resources})
    config["a"].append(2)
    resources["tpu"] = 2.0
    for each in (made, made.options(name="other")):
        assert each.user_config == {"a": [1]}
        assert each.ray_actor_options.resources == {"tpu": 1.0}


# ── Identity ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deployment_is_shown_by_its_name() -> None:
    assert str(deployment(Model)) == "Deployment(name=Model)"


def test_deployments_are_equal_when_name_code_and_options_are() -> None:
    first = deployment(Model, num_replicas=2)
    assert first == deployment(Model).options(num_replicas=2)
    assert hash(first) == hash(deployment(Model))
    different = [deployment(Model), first.options(name="other"), first.options(double), Model, "Model"]
    assert [each for each in different if each == first] == []


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_deployment_can_be_copied_and_pickled(again: Any) -> None:
    made = deployment(Model, num_replicas=2, user_config={"a": 1})
    assert again(made) == made
    assert again(made).options(name="x").num_replicas == 2


# ── Binding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_binding_keeps_the_arguments() -> None:
    made = deployment(Model)
    bound = made.bind(1, two=2)
    assert isinstance(bound, Application)
    assert parts_of(bound) == (made, (1,), {"two": 2})
    assert [name for name in dir(bound) if not name.startswith("_")] == [], "an application has no public members"


@pytest.mark.parametrize("code", [double, partial(double, 1)], ids=["function", "partial"])
def test_a_function_takes_no_constructor_arguments(code: Any) -> None:
    made = deployment(code)
    with pytest.raises(ValueError, match="init_args not supported for function deployments"):
        made.bind(1)
    with pytest.raises(ValueError, match="init_args not supported for function deployments"):
        made.bind(number=1)
    assert parts_of(made.bind())[1:] == ((), {})


def test_each_bind_is_an_application_of_its_own() -> None:
    made = deployment(Model)
    assert made.bind(1) is not made.bind(1)
    assert made.bind(1) != made.bind(1)
