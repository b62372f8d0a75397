"""From what an import path leads to, to an Application: builder functions and their arguments."""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from salver.api.application import Application
from salver.api.deployment import Deployment
from salver.schema.errors import BuildFailed


def application_from(target: Any, arguments: Mapping[str, Any], *, described_as: str) -> Application:
    """Return an application, calling a builder function with the arguments where the target is one.

    Args:
        described_as: How messages call the target: its import path.

    Raises:
        BuildFailed: The target is neither, or does not go with the arguments.
    """
    if isinstance(target, Application):
        if arguments:
            raise BuildFailed(
                f"Arguments ({', '.join(arguments)}) were given, but '{described_as}' is an application that is "
                "bound already. Only builder functions take arguments."
            )
        return target
    if isinstance(target, Deployment):
        raise BuildFailed(
            f"'{described_as}' is a deployment that is not bound. Name an application: `app = {target.name}.bind(...)`."
        )
    if not inspect.isfunction(target):
        raise BuildFailed(
            f"'{described_as}' is not an application but {_described(target)}. Expected what `.bind()` returns, "
            "or a function that returns it."
        )
    built = target(_argument_of(target, arguments, described_as))
    if not isinstance(built, Application):
        raise BuildFailed(
            f"The builder function '{described_as}' returned {_described(built)}; expected what `.bind()` returns."
        )
    return built


def _argument_of(builder: types.FunctionType, arguments: Mapping[str, Any], described_as: str) -> Any:
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1:
        raise BuildFailed(
            "Application builder functions should take exactly one parameter, a dictionary containing the passed "
            f"arguments; '{described_as}' takes {len(parameters)}."
        )
    model = _annotation(builder, parameters[0].name)
    validate = getattr(model, "model_validate", None)
    if validate is None:
        return dict(arguments)
    try:
        return validate(dict(arguments))
    except ValueError as error:
        raise BuildFailed(f"The arguments of '{described_as}' are not valid: {error}") from error


def _annotation(builder: types.FunctionType, name: str) -> Any:
    """Return what the parameter is annotated with; other annotations may name what only type checkers import."""
    annotations = {key: value for key, value in builder.__annotations__.items() if key == name}
    only_this = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(only_this, builder.__globals__).get(name)
    except (NameError, AttributeError, SyntaxError, TypeError):
        return None


def _described(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, type) else f"the class {value.__name__}"
