"""The bound graph: what `Deployment.bind()` returns."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salver.api.deployment import Deployment


class Application:
    """A deployment bound to its constructor's arguments; may be an argument of others. Made by `Deployment.bind()`.

    The application that is run is its ingress: the one that HTTP requests reach. The same object bound in two places
    is one deployment.
    """

    __slots__ = ("_args", "_deployment", "_kwargs")

    def __init__(self, deployment: "Deployment[Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._deployment = deployment
        self._args = args
        self._kwargs = kwargs

    def __repr__(self) -> str:
        return f"Application(ingress={self._deployment.name})"


def parts_of(application: Application) -> "tuple[Deployment[Any], tuple[Any, ...], dict[str, Any]]":
    """Return the deployment and the arguments that an application binds."""
    return application._deployment, application._args, application._kwargs
