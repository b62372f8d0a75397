"""`@deployment`: a class or function, and the options it is to be served with. Descriptions only."""

from collections.abc import Callable
from copy import deepcopy
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from salver.api.application import Application
from salver.api.routing import checked_routing
from salver.schema.errors import InvalidOption
from salver.schema.options import (
    ActorOptions,
    BackpressureConfig,
    OptionChanges,
    Options,
    RequestRouterConfig,
    validated,
    with_aliases,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Never

    import typing_extensions

    Code_co = typing_extensions.TypeVar("Code_co", bound=Callable[..., Any], covariant=True, default=Any)
else:
    Code_co = TypeVar("Code_co", covariant=True)

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type[Any])
P = ParamSpec("P")
T = TypeVar("T")


class Deployment(Generic[Code_co]):
    """A class or function with the options it is to be served with; made by `@serve.deployment`.

    It is never changed: `options` returns a copy, `bind` an `Application`.
    """

    _func_or_class: Code_co
    _name: str
    _changes: "Mapping[str, Any]"
    _options: Options

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("The Deployment constructor should not be called directly. Use `@serve.deployment`.")

    @property
    def name(self) -> str:
        """Return the deployment's name."""
        return self._name

    @property
    def version(self) -> None:
        """Return None: each run is a version of its own."""
        return

    @property
    def init_args(self) -> tuple[Any, ...]:
        """Return no arguments: an `Application`, which `bind` makes, has them."""
        return ()

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Return no arguments: an `Application`, which `bind` makes, has them."""
        return {}

    @property
    def func_or_class(self) -> Code_co:
        """Return what was decorated, as it was."""
        return self._func_or_class

    @property
    def all_options(self) -> Options:
        """Return every option with its value."""
        return self._options

    @property
    def num_replicas(self) -> int:
        """Return how many replicas it starts with."""
        return self._options.initial_replicas

    @property
    def max_ongoing_requests(self) -> int:
        """Return how many requests one replica works on at once."""
        return self._options.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        """Return how many requests each caller may have waiting; -1 for no limit."""
        return self._options.max_queued_requests

    @property
    def backpressure_config(self) -> BackpressureConfig:
        """Return what is answered when the queue is full."""
        return self._options.backpressure_config or BackpressureConfig()

    @property
    def request_router_config(self) -> RequestRouterConfig:
        """Return how its callers choose among the replicas."""
        return self._options.request_router_config or RequestRouterConfig()

    @property
    def user_config(self) -> Any:
        """Return what `reconfigure` is called with."""
        return self._options.user_config

    @property
    def ray_actor_options(self) -> ActorOptions:
        """Return the resources of each replica."""
        return self._options.ray_actor_options

    @overload
    def options(
        self, func_or_class: None = None, *, name: str | None = None, **changes: Unpack[OptionChanges]
    ) -> Self: ...

    @overload
    def options(
        self, func_or_class: Class, *, name: str | None = None, **changes: Unpack[OptionChanges]
    ) -> "Deployment[Class]": ...

    @overload
    def options(
        self, func_or_class: Function, *, name: str | None = None, **changes: Unpack[OptionChanges]
    ) -> "FunctionDeployment[Function]": ...

    def options(
        self,
        func_or_class: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        **changes: Unpack[OptionChanges],
    ) -> "Deployment[Any]":
        """Return a copy with some options changed; the others stay.

        Args:
            func_or_class: Other code to serve under these options.
            name: Another name.
            **changes: Options to set; see `salver.schema.options.Options`.

        Raises:
            InvalidOption: A value is not allowed.
            TypeError: There is no such option.
        """
        return _made(
            self._func_or_class if func_or_class is None else _checked_code(func_or_class),
            self._name if name is None else _checked_name(name),
            _merged(self._changes, with_aliases(cast("Mapping[str, Any]", changes))),
        )

    def bind(self: "Deployment[Callable[P, T]]", *args: P.args, **kwargs: P.kwargs) -> Application[T]:
        """Bind constructor arguments; bound deployments among them arrive as handles, at any depth."""
        return Application(self, args, kwargs)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: a deployment is served, not called."""
        raise RuntimeError(
            f"Deployments cannot be constructed directly. Use `{self._name}.bind(...)` and `serve.run`, "
            f"or `{self._name}.func_or_class(...)` to test the class without serving it."
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Deployment)
            and self._name == other._name
            and self._options == other._options
            and self._func_or_class == other._func_or_class
        )

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"Deployment(name={self._name})"


class FunctionDeployment(Deployment[Code_co]):
    """A function with the options it is to be served with."""

    def bind(self, *args: "Never", **kwargs: "Never") -> Application[Code_co]:
        """Make an application of it.

        Raises:
            InvalidOption: There are arguments, for which a function has no constructor.
        """
        if args or kwargs:
            raise InvalidOption(f"init_args not supported for function deployments ('{self._name}' is a function).")
        return Application(self, args, kwargs)


class Decorator(Protocol):
    """What `@deployment(...)` with options is, to type checkers."""

    @overload
    def __call__(self, func_or_class: Class, /) -> Deployment[Class]: ...

    @overload
    def __call__(self, func_or_class: Function, /) -> FunctionDeployment[Function]: ...


@overload
def deployment(
    _func_or_class: Class, /, *, name: str | None = None, **options: Unpack[OptionChanges]
) -> Deployment[Class]: ...


@overload
def deployment(
    _func_or_class: Function, /, *, name: str | None = None, **options: Unpack[OptionChanges]
) -> FunctionDeployment[Function]: ...


@overload
def deployment(*, name: str | None = None, **options: Unpack[OptionChanges]) -> Decorator: ...


def deployment(
    _func_or_class: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    **options: Unpack[OptionChanges],
) -> Any:
    """Make a deployment of a class or function; used bare or with options, as a decorator or as a call.

    Args:
        name: The deployment's name; the class's or function's unless given. '#' is not allowed.
        **options: See `salver.schema.options.Options` for each option, its default and its bounds.

    Raises:
        InvalidOption: A value is not allowed.
        ModuleNotFoundError: The module of `request_router_config` does not exist.
        TypeError: There is no such option, or what is decorated is neither a class nor a function.
    """
    changes = with_aliases(cast("Mapping[str, Any]", options))
    checked_routing(validated(changes).request_router_config)
    checked = None if name is None else _checked_name(name)

    def decorate(func_or_class: Callable[..., Any]) -> Deployment[Any]:
        code = _checked_code(func_or_class)
        own = getattr(code, "__name__", type(code).__name__)
        return _made(code, own if checked is None else checked, changes)

    return decorate if _func_or_class is None else decorate(_func_or_class)


def _made(code: Callable[..., Any], name: str, changes: "Mapping[str, Any]") -> Deployment[Any]:
    made: Deployment[Any] = object.__new__(Deployment if isinstance(code, type) else FunctionDeployment)
    made._func_or_class = code
    made._name = name
    made._options = validated(changes)
    checked_routing(made._options.request_router_config)
    # Copied, so that the user's own dictionaries may change later.
    made._changes = deepcopy(dict(changes))
    made.__doc__ = code.__doc__
    return made


def _merged(former: "Mapping[str, Any]", changes: "Mapping[str, Any]") -> dict[str, Any]:
    """Return all changes; a fixed number of replicas and autoscaling replace each other."""
    merged = {**former, **changes}
    if merged.get("num_replicas") not in (None, "auto") and merged.get("autoscaling_config") is not None:
        outdated = {"num_replicas", "autoscaling_config"} - changes.keys()
        merged = {name: value for name, value in merged.items() if name not in outdated}
    return merged


def _checked_code(code: Any) -> Callable[..., Any]:
    if isinstance(code, Deployment) or not callable(code):
        raise TypeError("@serve.deployment must be called on a class or function.")
    checked: Callable[..., Any] = code
    return checked


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}.")
    if "#" in name:
        raise InvalidOption(f"Option 'name' got {name!r}: '#' is not allowed in a deployment's name.")
    return name
