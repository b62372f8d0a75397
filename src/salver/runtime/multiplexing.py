"""`@multiplexed`: many models behind one deployment, of which each replica keeps the ones used last."""

import inspect
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import MethodType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from salver.handle.request_context import current_request
from salver.runtime.model_cache import UNLIMITED
from salver.runtime.models import models_here

M = TypeVar("M")

DEFAULT_MODELS_PER_REPLICA = 3
_NOT_ASYNC = "@serve.multiplexed can only be used to decorate async functions or methods."


class BoundMultiplexed(Generic[M]):
    """A multiplexed method of one instance: takes a model's id, returns the model.

    Args:
        key: Tells it from the other multiplexed functions of its replica.
    """

    def __init__(self, load: Callable[[str], Coroutine[Any, Any, M]], capacity: int, key: object) -> None:
        self._load = load
        self._capacity = capacity
        self._key = key

    async def __call__(self, model_id: str) -> M:
        """Return the model of this id, loaded if this replica does not have it.

        Raises:
            TypeError: The id is no string.
            ValueError: The id is empty.
            RuntimeError: This is no replica.
        """
        if not isinstance(model_id, str):
            raise TypeError(f"The model ID must be a string. Got {model_id!r} ({type(model_id).__name__}).")
        if not model_id:
            raise ValueError(
                "The model ID cannot be empty. Requests name their model in the header `serve_multiplexed_model_id` "
                "or with `handle.options(multiplexed_model_id=...)`."
            )
        return await models_here().of(self._key, self._load, self._capacity).get(model_id)


class Multiplexed(Generic[M]):
    """A decorated loader: called as it was before, it returns models that may have been loaded already.

    Args:
        load: The user's async function or method.
        capacity: How many models a replica keeps; -1 for any number.
    """

    def __init__(self, load: Callable[..., Coroutine[Any, Any, M]], capacity: int) -> None:
        self._load = load
        self._capacity = capacity
        update_wrapper(self, load)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> BoundMultiplexed[M]: ...
    def __get__(self, instance: object | None, owner: type) -> Self | BoundMultiplexed[M]:
        if instance is None:
            return self
        # The replica keeps the loader, and with it the instance: its id is not given to another one meanwhile.
        return BoundMultiplexed(MethodType(self._load, instance), self._capacity, (self, id(instance)))

    async def __call__(self, model_id: str) -> M:
        """Return the model of this id; see `BoundMultiplexed.__call__`."""
        return await BoundMultiplexed(self._load, self._capacity, self)(model_id)


class Decorator(Protocol):
    """What `multiplexed` with arguments returns."""

    @overload
    def __call__(self, func: Callable[[str], Coroutine[Any, Any, M]], /) -> Multiplexed[M]: ...
    @overload
    def __call__(self, func: Callable[[Any, str], Coroutine[Any, Any, M]], /) -> Multiplexed[M]: ...


@overload
def multiplexed(
    func: Callable[[str], Coroutine[Any, Any, M]], max_num_models_per_replica: int = ...
) -> Multiplexed[M]: ...
@overload
def multiplexed(
    func: Callable[[Any, str], Coroutine[Any, Any, M]], max_num_models_per_replica: int = ...
) -> Multiplexed[M]: ...
@overload
def multiplexed(func: None = None, max_num_models_per_replica: int = ...) -> Decorator: ...
def multiplexed(
    func: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    max_num_models_per_replica: int = DEFAULT_MODELS_PER_REPLICA,
) -> Any:
    """Let a deployment serve many models, of which each replica keeps some.

    The decorated `async def` takes a model's id and loads it. Where it is awaited, the model comes from the replica's
    memory if it is there. Otherwise the model that was not used for longest is unloaded, if there is no room, and then
    the new one is loaded: one at a time, and once for all who wait. A model that has a `__del__` is unloaded by it.

    Args:
        func: An async function of `model_id`, or an async method of `self` and `model_id`.
        max_num_models_per_replica: How many models a replica keeps; -1 for any number.

    Raises:
        TypeError: It is no such function, or the number is no integer.
        ValueError: The number is neither positive nor -1.
    """
    _check_capacity(max_num_models_per_replica)

    def decorate(load: Callable[..., Coroutine[Any, Any, M]]) -> Multiplexed[M]:
        _check_loader(load)
        return Multiplexed(load, max_num_models_per_replica)

    return decorate if func is None else decorate(func)


def get_multiplexed_model_id() -> str:
    """Return the id of the model that the current request is for; "" where it named none, and outside of a request."""
    return current_request().multiplexed_model_id


def _check_capacity(number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"max_num_models_per_replica must be an integer. Got {number!r} ({type(number).__name__}).")
    if number != UNLIMITED and number <= 0:
        raise ValueError(f"max_num_models_per_replica must be positive. Got {number}; -1 stands for any number.")


def _check_loader(load: object) -> None:
    if not inspect.iscoroutinefunction(load):
        raise TypeError(f"{_NOT_ASYNC} Got {load!r}.")
    expected = ["self", "model_id"] if _is_method(load) else ["model_id"]
    parameters = inspect.signature(load).parameters.values()
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(expected) or len(parameters) != len(expected):
        kind = "method" if _is_method(load) else "function"
        raise TypeError(
            f"A {kind} decorated with @serve.multiplexed takes exactly ({', '.join(expected)}), "
            f"got {inspect.signature(load)}."
        )


def _is_method(load: Callable[..., Any]) -> bool:
    """Say whether a function is written in a class, whose name comes before its own then."""
    owner = getattr(load, "__qualname__", "").rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")
