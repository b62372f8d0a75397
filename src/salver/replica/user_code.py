"""The user's class or function: constructed, called, reconfigured, closed."""

import asyncio
import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from salver.lib import preloaded
from salver.lib.finalizers import claim_finalizer
from salver.lib.importing import get_attribute, import_module
from salver.replica.generators import Items, ItemsInThreads, ItemsOnLoop
from salver.replica.workers import Workers
from salver.schema.application import CodeRef, ImportedCode
from salver.schema.errors import NoSuchMethod, SalverError
from salver.schema.ids import ReplicaRank

Servable = Callable[..., Any]

_HOOK_THREADS = 2
"""A health check must not wait for a `reconfigure` that takes long; neither may wait for requests."""

_GENERATORS = (GeneratorType, AsyncGeneratorType)


def resolve(code: CodeRef) -> Servable:
    """Return the class or function that a reference leads to, without its decoration as a deployment."""
    if isinstance(code, ImportedCode):
        target = get_attribute(import_module(code.module), code.qualname)
    else:
        target = preloaded.get(code.digest)
    servable: Servable = getattr(target, "func_or_class", target)
    return servable


@dataclass(frozen=True)
class _Method:
    function: Callable[..., Any]
    is_async: bool
    takes_nothing: bool


class UserCode:
    """One copy of the user's class, or the user's function.

    Args:
        servable: The class or function.
        max_threads: How many plain `def` calls run at once.
    """

    def __init__(self, servable: Servable, *, max_threads: int) -> None:
        self._servable = servable
        self._instance: Any = None
        self._methods: dict[str, _Method] = {}
        self._workers = Workers(max_threads)
        self._hooks = Workers(_HOOK_THREADS)

    @property
    def instance(self) -> Any:
        """Return the user's instance, or the function itself."""
        return self._instance

    async def construct(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make the instance; an `async def __init__` is awaited."""
        if not inspect.isclass(self._servable):
            self._instance = self._servable
            return
        cls = self._servable
        self._instance = cls.__new__(cls) if cls.__new__ is object.__new__ else cls.__new__(cls, *args, **kwargs)
        made = self._instance.__init__(*args, **kwargs)
        if inspect.isawaitable(made):
            await made

    @property
    def takes_rank(self) -> bool:
        """Say whether the user's `reconfigure` has a parameter `rank`."""
        method = self._hook_named("reconfigure")
        return method is not None and "rank" in _parameters(method)

    async def reconfigure(self, user_config: Any, rank: ReplicaRank, *, serves: bool) -> None:
        """Hand the user's class its configuration, and its rank where it wants that.

        Args:
            serves: Requests run meanwhile, which a plain `def` must not hold up: it runs in a thread then. At the
                start it runs where the constructor ran.

        Raises:
            SalverError: There is a configuration and nothing that could take it.
        """
        method, takes_rank = self._hook_named("reconfigure"), self.takes_rank
        if user_config is None and not takes_rank:
            return
        if method is None:
            raise SalverError(
                f"user_config was given, but {_name_of(self._servable)} has no method "
                "`reconfigure(self, user_config)` to take it."
            )
        named = {"rank": rank} if takes_rank else {}
        if serves:
            await self._run_hook(method, user_config, **named)
        else:
            done = method(user_config, **named)
            if inspect.isawaitable(done):
                await done

    async def check_health(self) -> None:
        """Run the user's `check_health`, where there is one; it raises where the replica is not healthy."""
        method = self._hook_named("check_health")
        if method is not None:
            await self._run_hook(method)

    def find_hook(self, name: str) -> Callable[..., Any] | None:
        """Return a method that the user's class may have and that Salver calls by itself, or None."""
        # Asked of the class: an instance that passes on whatever it does not know would seem to have them all.
        is_there = inspect.isclass(self._servable) and hasattr(self._servable, name)
        return self._lookup(name) if is_there else None

    def change_max_threads(self, max_threads: int) -> None:
        """Run at most this many plain `def` calls at once from now on; those that run are not interrupted."""
        self._workers.resize(max_threads)

    async def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method by name and return its result.

        Raises:
            NoSuchMethod: There is no such method.
            TypeError: The method is a generator.
        """
        method = self._methods.get(name) or self._find(name)
        result = await self._run(method, args, kwargs)
        if isinstance(result, _GENERATORS):
            await _close(result)
            raise TypeError(
                f"Method '{name}' returned a generator. You must use `handle.options(stream=True)` "
                "to call generators on a deployment."
            )
        return result

    async def stream(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Items:
        """Call a method by name and return the generator that it returns.

        Raises:
            NoSuchMethod: There is no such method.
            TypeError: It returned no generator.
        """
        method = self._methods.get(name) or self._find(name)
        result = await self._run(method, args, kwargs)
        if isinstance(result, AsyncGeneratorType):
            return ItemsOnLoop(result)
        if isinstance(result, GeneratorType):
            return ItemsInThreads(result, self._workers)
        raise TypeError(f"Called method '{name}' with `handle.options(stream=True)` but it did not return a generator.")

    async def call_with_request(self, request: Any) -> Any:
        """Call `__call__` for an HTTP request; one that takes nothing gets nothing.

        Raises:
            NoSuchMethod: There is no `__call__`.
            TypeError: It is a generator.
        """
        method = self._methods.get("__call__") or self._find("__call__")
        result = await self._run(method, () if method.takes_nothing else (request,), {})
        if isinstance(result, _GENERATORS):
            await _close(result)
            raise TypeError("A handler returned a generator; return a starlette StreamingResponse of it instead.")
        return result

    def release_threads(self) -> None:
        """Let the threads of plain `def` calls end as soon as those that run have ended."""
        self._workers.close()
        self._hooks.close()

    async def close(self) -> None:
        """Run the user's `__del__`, once."""
        instance, self._instance = self._instance, None
        self._methods.clear()
        self.release_threads()
        finalizer = claim_finalizer(instance)
        if finalizer is None:
            return
        done = finalizer(instance)
        if inspect.isawaitable(done):
            await done

    async def _run(self, method: _Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method.is_async:
            return await method.function(*args, **kwargs)
        result = await self._workers.run(method.function, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def _run_hook(self, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run a hook beside requests: a plain `def` in a thread, so that it cannot hold the loop."""
        if _is_async(hook):
            await hook(*args, **kwargs)
            return
        job = self._hooks.start(hook, args, kwargs)
        try:
            result = await job.future
        except asyncio.CancelledError:
            # One that runs goes on; nobody waits for it any more.
            self._hooks.drop(job)
            raise
        if inspect.isawaitable(result):
            await result

    def _hook_named(self, name: str) -> Callable[..., Any] | None:
        return self._lookup(name) if inspect.isclass(self._servable) else None

    def _find(self, name: str) -> _Method:
        function = self._lookup(name)
        if function is None:
            raise NoSuchMethod(
                f"Tried to call a method '{name}' that does not exist. Available methods: {self._public_methods()}."
            )
        method = _Method(function, _is_async(function), _takes_nothing(function))
        self._methods[name] = method
        return method

    def _lookup(self, name: str) -> Callable[..., Any] | None:
        if not inspect.isclass(self._servable):
            return self._servable if name == "__call__" else None
        found = getattr(self._instance, name, None)
        return found if callable(found) else None

    def _public_methods(self) -> list[str]:
        if not inspect.isclass(self._servable):
            return ["__call__"]
        names = [name for name in dir(self._servable) if callable(getattr(self._servable, name, None))]
        return sorted(name for name in names if name == "__call__" or not name.startswith("_"))


async def _close(generator: Any) -> None:
    """Run what a generator has in its `finally`; what that raises matters less than that it is a generator."""
    with suppress(Exception):
        await (generator.aclose() if inspect.isasyncgen(generator) else asyncio.to_thread(generator.close))


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object whose call is async


def _name_of(servable: Servable) -> str:
    return getattr(servable, "__name__", type(servable).__name__)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _parameters(function: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()
