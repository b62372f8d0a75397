"""What `serve.run_many` is told of each application."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from salver.api.application import Application
from salver.api.build import checked_app_name, checked_route_prefix
from salver.schema.errors import InvalidOption, SalverError
from salver.schema.ids import DEFAULT_APP_NAME


@dataclass(frozen=True)
class RunTarget:
    """One application of those that `serve.run_many` deploys.

    Attributes:
        target: What `Deployment.bind()` returned.
        name: The application's name; one of the same name is replaced.
        route_prefix: Where HTTP requests find it; None for handles only.
    """

    target: Application
    name: str = DEFAULT_APP_NAME
    route_prefix: str | None = "/"


def checked(targets: Iterable[RunTarget]) -> Sequence[RunTarget]:
    """Return targets that can be deployed together.

    Raises:
        ValueError: There is none; or, as `InvalidOption`, a name or route prefix is not allowed, or a name comes twice.
        TypeError: One is no RunTarget, or its target no application.
        SalverError: Two have the same route prefix.
    """
    targets = list(targets)
    if not targets:
        raise ValueError("No applications provided.")
    names: set[str] = set()
    prefixes: dict[str, str] = {}
    for each in targets:
        name, prefix = _checked_one(each)
        if name in names:
            raise InvalidOption(f"Two applications are named '{name}'. Give each a name of its own.")
        names.add(name)
        if prefix is not None and prefixes.setdefault(prefix, name) != name:
            raise SalverError(
                f'Prefix {prefix} is being used by application "{prefixes[prefix]}". '
                f'Failed to deploy application "{name}".'
            )
    return targets


def _checked_one(target: RunTarget) -> tuple[str, str | None]:
    if not isinstance(target, RunTarget):
        raise TypeError(f"`serve.run_many` expects RunTarget objects, got {type(target).__name__}.")
    if not isinstance(target.target, Application):
        raise TypeError(
            f"`serve.run` expects an `Application` returned by `Deployment.bind()`, got {type(target.target).__name__}."
        )
    return checked_app_name(target.name), checked_route_prefix(target.route_prefix)
