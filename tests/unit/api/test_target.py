"""What an import path leads to: an application, a function that builds one, or a message that says what is wrong."""

from typing import Any

import pydantic
import pytest

from salver.api.application import Application, parts_of
from salver.api.deployment import deployment
from salver.api.target import application_from
from salver.schema.errors import BuildFailed


class Code:
    """What is deployed."""

    def __init__(self, *args: Any) -> None:
        """Take anything."""


Model = deployment(name="Model")(Code)


class Arguments(pydantic.BaseModel):
    """Typed arguments."""

    size: int = 1
    name: str = "x"


def from_dict(arguments: dict[str, str]) -> Application:
    """Build with a dictionary."""
    return Model.bind(arguments)


def from_anything(arguments) -> Application:  # type: ignore[no-untyped-def]
    """Build with what is not annotated."""
    return Model.bind(arguments)


def from_model(arguments: Arguments) -> Application:
    """Build with a pydantic model."""
    return Model.bind(arguments)


def from_quoted_model(arguments: "Arguments") -> Application:
    """Build with a pydantic model whose name is quoted."""
    return Model.bind(arguments)


def found(target: Any, **arguments: str) -> Application:
    """Return the application that a target leads to."""
    return application_from(target, arguments, described_as="main:app")


def argument_of(application: Application) -> Any:
    """Return the first constructor argument."""
    return parts_of(application)[1][0]


def test_an_application_is_taken_as_it_is() -> None:
    app = Model.bind()
    assert found(app) is app


@pytest.mark.parametrize("builder", [from_dict, from_anything], ids=["dict", "not annotated"])
def test_a_builder_gets_the_arguments_as_a_dictionary(builder: Any) -> None:
    assert argument_of(found(builder, size="3")) == {"size": "3"}
    assert argument_of(found(builder)) == {}


@pytest.mark.parametrize("builder", [from_model, from_quoted_model], ids=["annotation", "quoted annotation"])
def test_a_builder_gets_the_arguments_as_its_model(builder: Any) -> None:
    assert argument_of(found(builder, size="3")) == Arguments(size=3)


def test_arguments_that_the_model_refuses_are_told() -> None:
    with pytest.raises(BuildFailed, match=r"(?s)The arguments of 'main:app' are not valid: .*size"):
        found(from_model, size="many")


def test_arguments_for_an_application_are_refused() -> None:
    with pytest.raises(BuildFailed, match=r"Arguments \(size\) were given, but 'main:app' is an application"):
        found(Model.bind(), size="3")


def test_an_unbound_deployment_is_told_what_to_do() -> None:
    with pytest.raises(BuildFailed, match=r"not bound. Name an application: `app = Model.bind\(...\)`"):
        found(Model)


@pytest.mark.parametrize(
    ("target", "described"),
    [(3, "a int"), (None, "a NoneType"), (Arguments, "the class Arguments"), (print, "a builtin_function_or_method")],
    ids=["number", "None", "class", "built-in"],
)
def test_anything_else_is_described(target: Any, described: str) -> None:
    with pytest.raises(BuildFailed, match=f"'main:app' is not an application but {described}. Expected what"):
        found(target)


def no_parameters() -> Application:
    """Take too little."""
    return Model.bind()


def two_parameters(arguments: dict[str, str], debug: bool = False) -> Application:
    """Take too much."""
    return Model.bind()


@pytest.mark.parametrize(("builder", "number"), [(no_parameters, 0), (two_parameters, 2)], ids=["none", "two"])
def test_a_builder_takes_exactly_one_parameter(builder: Any, number: int) -> None:
    with pytest.raises(BuildFailed, match=f"should take exactly one parameter, .*'main:app' takes {number}"):
        found(builder)


@pytest.mark.parametrize(
    ("result", "described"), [(None, "a NoneType"), (Model, "a Deployment")], ids=["None", "unbound"]
)
def test_what_a_builder_returns_must_be_an_application(result: Any, described: str) -> None:
    def builder(arguments: dict[str, str]) -> Any:
        return result

    with pytest.raises(BuildFailed, match=f"'main:app' returned {described}; expected what `.bind"):
        found(builder)


def test_what_a_builder_raises_passes_through() -> None:
    def builder(arguments: dict[str, str]) -> Application:
        raise LookupError("no weights")

    with pytest.raises(LookupError, match="no weights"):
        found(builder)


def test_a_builder_annotated_with_what_is_not_there_gets_a_dictionary() -> None:
    def builder(arguments: "NotImported") -> Application:  # type: ignore[name-defined]  # noqa: F821 - that is the point
        return Model.bind(arguments)

    assert argument_of(found(builder, size="3")) == {"size": "3"}


def from_partly_known(arguments: "Arguments") -> "NotImported":  # type: ignore[name-defined]  # noqa: F821 - the point
    """Build with a model; what it returns is named for type checkers only."""
    return Model.bind(arguments)


def test_annotations_that_only_type_checkers_see_do_not_hide_the_model() -> None:
    assert argument_of(found(from_partly_known, size="3")) == Arguments(size=3)
