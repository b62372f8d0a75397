"""From a bound graph to a specification: handles in place of applications, names, pickled arguments, import paths."""

import dataclasses
import pickle
import threading
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import salver as serve
from salver.api.application import Application
from salver.api.build import build, checked_app_name, checked_route_prefix
from salver.handle import DeploymentHandle
from salver.schema.application import ApplicationSpec, DeploymentSpec, ImportedCode
from salver.schema.errors import BuildFailed, InvalidOption


@serve.deployment
class Model:
    """A leaf."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


@serve.deployment
class Ingress:
    """A root."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


@serve.deployment
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


class Plain:
    """Code with a name of its own, decorated under another."""

    class Inner:
        """Nested code."""


Renamed = serve.deployment(Plain, name="renamed")
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True)
class Settings:
    """An object with attributes."""

    model: Any


def built(target: Application, name: str = "shop", **options: Any) -> ApplicationSpec:
    """Build an application."""
    return build(target, name=name, route_prefix="/", **options)


def arguments(spec: ApplicationSpec, name: str | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the unpickled constructor arguments of a deployment, of the ingress by default."""
    found: tuple[tuple[Any, ...], dict[str, Any]] = pickle.loads(deployment_of(spec, name).arguments)
    return found


def deployment_of(spec: ApplicationSpec, name: str | None = None) -> DeploymentSpec:
    """Return one of the deployments, the ingress by default."""
    return next(each for each in spec.deployments if each.name == (name or spec.ingress))


def names(spec: ApplicationSpec) -> list[str]:
    """Return the names of all deployments, those first that others need."""
    return [each.name for each in spec.deployments]


MODEL: DeploymentHandle[Any] = DeploymentHandle("Model", "shop")


class Bound(partial[Any]):
    """A partial that can be compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and other.args == self.args

    __hash__ = None  # type: ignore[assignment]


# ── The whole ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_specification_has_everything_that_was_bound() -> None:
    spec = build(Ingress.options(num_replicas=3).bind(1, two=2), name="shop", route_prefix="/s")
    assert (spec.name, spec.route_prefix, spec.ingress, names(spec)) == ("shop", "/s", "Ingress", ["Ingress"])
    assert arguments(spec) == ((1,), {"two": 2})
    assert deployment_of(spec).options.num_replicas == 3
    assert deployment_of(spec).code == ImportedCode(__name__, "Ingress")
    assert spec.warnings == ()


def test_each_build_is_a_version_of_its_own() -> None:
    app = Model.bind()
    assert built(app).version != built(app).version


def test_a_specification_is_the_same_after_travelling() -> None:
    spec = built(Ingress.options(num_replicas=3, user_config={"a": [1]}).bind(Model.bind(Model.bind())))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ApplicationSpec) == spec


def test_the_ingress_is_the_one_that_was_built_and_comes_after_what_it_needs() -> None:
    spec = built(Ingress.bind(Model.bind(double.bind())))
    assert spec.ingress == "Ingress"
    assert names(spec) == ["double", "Model", "Ingress"]


def test_an_application_may_be_built_again_and_as_part_of_another() -> None:
    model = Model.bind()
    assert built(model).ingress == "Model"
    assert built(Ingress.bind(model)).ingress == "Ingress"
    assert arguments(built(Ingress.bind(model), name="other"))[0][0].app_name == "other"


# ── Handles in place of applications ────────────────────────────────────────────────────────────────────────────────

CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "argument": lambda it: it,
    "list": lambda it: [1, it],
    "tuple": lambda it: (it,),
    "set": lambda it: {it},
    "frozenset": lambda it: frozenset([it]),
    "dict value": lambda it: {"key": it},
    "dict key": lambda it: {it: "value"},
    "namedtuple": lambda it: Pair(it, [it]),
    "OrderedDict": lambda it: OrderedDict(key=it),
    "defaultdict": lambda it: defaultdict(list, key=[it]),
    "UserDict": lambda it: UserDict(key=it),
    "deque": lambda it: deque([it]),
    "attribute": lambda it: SimpleNamespace(it=it),
    "dataclass": Settings,
    "partial": lambda it: Bound(Settings, it),
    "deep": lambda it: {"a": [({"b": [Settings({it: (it,)})]},)]},
}


@pytest.mark.parametrize("place", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("by", ["position", "keyword"])
def test_bound_deployments_arrive_as_handles_wherever_they_are(place: Callable[[Any], Any], by: str) -> None:
    given_value = place(Model.bind())
    spec = built(Ingress.bind(given_value) if by == "position" else Ingress.bind(it=given_value))
    args, kwargs = arguments(spec)
    arrived = args[0] if by == "position" else kwargs["it"]
    assert arrived == place(MODEL)
    assert type(arrived) is type(place(MODEL))
    assert names(spec) == ["Model", "Ingress"]


def test_what_was_bound_is_left_as_it_was() -> None:
    models = [Model.bind()]
    built(Ingress.bind(models))
    assert isinstance(models[0], Application)


def test_an_application_in_a_closure_arrives_as_a_handle_too() -> None:
    model = Model.bind()
    args, _ = arguments(built(Ingress.bind(lambda: model)))
    assert args[0]() == MODEL


def test_the_same_application_in_many_places_is_one_deployment() -> None:
    shared = Model.bind()
    spec = built(Ingress.bind(shared, [shared], Ingress.options(name="middle").bind(shared), again={"it": shared}))
    assert names(spec) == ["Model", "middle", "Ingress"]
    assert arguments(spec, "middle")[0] == (MODEL,)
    (first, (second,), _), kwargs = arguments(spec)
    assert first is second is kwargs["again"]["it"]


def test_values_that_are_shared_between_arguments_are_so_on_the_other_side() -> None:
    shared = [1]
    (first, second), _ = arguments(built(Ingress.bind(shared, {"it": shared})))
    assert first is second["it"]


@given(
    tree=st.recursive(
        st.just("model") | st.integers() | st.text(max_size=3),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=2), children, max_size=3),
        max_leaves=12,
    )
)
@settings(max_examples=40)
def test_any_tree_arrives_as_it_is_but_for_the_handles(tree: Any) -> None:
    def planted(value: Any, leaf: Any) -> Any:
        if isinstance(value, list):
            return [planted(each, leaf) for each in value]
        if isinstance(value, dict):
            return {key: planted(each, leaf) for key, each in value.items()}
        return leaf if value == "model" else value

    args, _ = arguments(built(Ingress.bind(planted(tree, Model.bind()))))
    assert args == (planted(tree, MODEL),)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_names_get_a_number_and_a_warning_each() -> None:
    spec = built(Ingress.bind(Model.bind(1), Model.bind(2), Model.bind(3)))
    assert names(spec) == ["Model", "Model_1", "Model_2", "Ingress"]
    assert [arguments(spec, name)[0] for name in names(spec)[:3]] == [(1,), (2,), (3,)]
    assert [handle.deployment_name for handle in arguments(spec)[0]] == ["Model", "Model_1", "Model_2"]
    assert len(spec.warnings) == 2
    assert "Two deployments are named 'Model'; one of them is called 'Model_1'" in spec.warnings[0]
    assert ".options(name=...)" in spec.warnings[0]


def test_the_ingress_may_be_the_one_that_gets_a_number() -> None:
    spec = built(Model.bind(Model.bind()))
    assert (names(spec), spec.ingress) == (["Model", "Model_1"], "Model_1")


def test_a_number_that_is_taken_is_skipped() -> None:
    taken = Model.options(name="Model_1")
    assert names(built(Ingress.bind(Model.bind(), taken.bind(), Model.bind()))) == [
        "Model",
        "Model_1",
        "Model_2",
        "Ingress",
    ]
    assert names(built(Ingress.bind(Model.bind(), Model.bind(), taken.bind())))[-2] == "Model_1_1"


@given(st.lists(st.sampled_from(["a", "a_1", "a_1_1", "a_2", "b", ""]), max_size=12))
@settings(max_examples=60)
def test_names_are_never_taken_twice_and_change_only_where_they_must(wished: list[str]) -> None:
    spec = built(Ingress.bind(*[Model.options(name=name).bind(index) for index, name in enumerate(wished)]))
    got = [handle.deployment_name for handle in arguments(spec)[0]]
    assert len(set(got)) == len(wished)
    by_name = {each.name: pickle.loads(each.arguments)[0] for each in spec.deployments}
    assert [by_name[name] for name in got] == [(index,) for index in range(len(wished))]
    taken: set[str] = set()
    for name, wish in zip(got, wished, strict=True):
        assert name == wish or (wish in taken and name.startswith(f"{wish}_"))
        taken.add(name)
    assert len(spec.warnings) == sum(name != wish for name, wish in zip(got, wished, strict=True))


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deployment_that_needs_itself_is_named() -> None:
    models: list[Any] = []
    app = Ingress.bind(models)
    models.append(app)
    with pytest.raises(BuildFailed, match="has a cycle: Ingress → Ingress"):
        built(app)


def test_a_longer_cycle_is_named_from_its_begin_to_its_end() -> None:
    models: dict[str, Any] = {}
    middle = Model.bind(models)
    app = Ingress.bind(first=middle)
    models["deep"] = [app]
    with pytest.raises(BuildFailed, match="has a cycle: Ingress → Model → Ingress"):
        built(app)


def test_a_container_that_holds_itself_is_no_cycle_of_deployments() -> None:
    loop: list[Any] = [Model.bind()]
    loop.append(loop)
    args, _ = arguments(built(Ingress.bind(loop)))
    assert args[0][1] is args[0]
    assert args[0][0] == MODEL


@pytest.mark.parametrize(
    "place",
    [lambda it: it, lambda it: [it], lambda it: {"a": ({it},)}, lambda it: {it: 1}],
    ids=["argument", "list", "deep", "dict key"],
)
@pytest.mark.parametrize("by", ["position", "keyword"])
def test_a_deployment_that_was_not_bound_is_named(place: Callable[[Any], Any], by: str) -> None:
    app = Ingress.bind(place(Model)) if by == "position" else Ingress.bind(it=place(Model))
    with pytest.raises(BuildFailed, match=r"'Model' was passed to \.bind\(\) of 'Ingress' unbound.*Model\.bind"):
        built(app)


class Sick:
    """Cannot be pickled, and says so in two lines."""

    def __reduce__(self) -> Any:
        raise ValueError("no pickling\nof me.")


@pytest.mark.parametrize(
    ("app", "place"),
    [
        pytest.param(lambda: Ingress.bind(1, threading.Lock()), r"argument 2 of \.bind\(\) \(lock\)", id="position"),
        pytest.param(lambda: Ingress.bind(it=threading.Lock()), r"argument 'it' of \.bind\(\) \(lock\)", id="keyword"),
        pytest.param(lambda: Ingress.bind({"a": [threading.Lock()]}), r"argument 1 of .* \(dict\)", id="nested"),
        pytest.param(lambda: Ingress.bind(Model.bind(), threading.Lock()), "'Ingress': argument 2", id="after another"),
    ],
)
def test_an_argument_that_cannot_be_pickled_is_named(app: Callable[[], Application], place: str) -> None:
    with pytest.raises(BuildFailed, match=f"{place}.* cannot be pickled: cannot pickle '_thread.lock' object"):
        built(app())


def test_an_argument_that_cannot_be_pickled_is_blamed_on_the_deployment_that_it_was_bound_to() -> None:
    with pytest.raises(BuildFailed, match=r"^Deployment 'Model': argument 1 .*") as caught:
        built(Ingress.bind([Model.bind(threading.Lock())]))
    assert "Ingress" not in str(caught.value)


def test_of_what_the_users_class_says_the_first_line_is_shown_and_its_error_is_the_cause() -> None:
    with pytest.raises(BuildFailed, match=r"cannot be pickled: no pickling\. Create it in __init__") as caught:
        built(Ingress.bind(Sick()))
    assert isinstance(caught.value.__cause__, ValueError)


# ── Warnings and checks ─────────────────────────────────────────────────────────────────────────────────────────────


def test_autoscaling_that_can_never_happen_is_a_warning() -> None:
    lazy = Model.options(max_ongoing_requests=1, autoscaling_config={"target_ongoing_requests": 2})
    (warning,) = built(lazy.bind()).warnings
    assert "Autoscaling will never happen for 'Model'" in warning
    assert built(lazy.options(max_ongoing_requests=2).bind()).warnings == ()


@pytest.mark.parametrize("prefix", [None, "/", "/a", "/a/b", "/ä b"])
def test_a_route_prefix_that_can_be_served_is_kept(prefix: str | None) -> None:
    assert checked_route_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        pytest.param("", r"must start with a forward slash \('/'\)\.", id="empty"),
        pytest.param("x", r"Invalid route_prefix 'x', must start with a forward slash", id="no slash"),
        pytest.param("/a/", r"Invalid route_prefix '/a/', may not end with a trailing '/'\.", id="slash at the end"),
        pytest.param("//", "may not end with a trailing '/'", id="two slashes"),
        pytest.param("/a/{b}", "may not contain wildcards", id="wildcard"),
        pytest.param(7, "must be a string or None", id="number"),
    ],
)
def test_a_route_prefix_that_cannot_be_served_is_refused(prefix: object, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        checked_route_prefix(prefix)


@pytest.mark.parametrize("name", ["", None, 7], ids=["empty", "None", "number"])
def test_an_application_needs_a_name(name: object) -> None:
    with pytest.raises(InvalidOption, match="must a non-empty string"):
        checked_app_name(name)
