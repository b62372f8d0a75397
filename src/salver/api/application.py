"""The bound graph: what `Deployment.bind()` returns."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import typing_extensions

    from salver.api.deployment import Deployment
    from salver.handle import DeploymentHandle

    T_co = typing_extensions.TypeVar("T_co", covariant=True, default=Any)

    class Base(DeploymentHandle[T_co]):
        """For type checkers only: a bound deployment arrives as a handle, so it goes where a handle is expected."""
else:
    T_co = TypeVar("T_co", covariant=True)
    Base = Generic


class Application(Base[T_co]):
    """A deployment bound to its constructor's arguments; may be an argument of others. Made by `Deployment.bind()`.

    The application that is run is its ingress: the one that HTTP requests reach. The same object bound in two places
    is one deployment.
    """

    __slots__ = ("_args", "_bound", "_kwargs")

    def __init__(self, deployment: "Deployment[Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._bound = deployment
        self._args = args
        self._kwargs = kwargs

    def __repr__(self) -> str:
        return f"Application(ingress={self._bound.name})"


def parts_of(application: Application[Any]) -> "tuple[Deployment[Any], tuple[Any, ...], dict[str, Any]]":
    """Return the deployment and the arguments that an application binds."""
    return application._bound, application._args, application._kwargs
