"""`@ingress`: an ASGI application — FastAPI, Starlette, anything — in front of a deployment's class.

The application is not copied. What is remembered at decoration are its routes and middlewares, so that later changes do
not count. Methods of the class among the endpoints are bound on the replica, whose process has exactly one instance;
where several replicas share a process, they are bound to the instance of the replica that is asked.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeVar

from salver.lib.process_local import shares_process
from salver.runtime.shared import of_the_asked_replica
from salver.schema.errors import SalverError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

C = TypeVar("C", bound=type)

INGRESS_ATTRIBUTE = "__serve_ingress__"
OWNER_ATTRIBUTE = "__serve_ingress_class__"
BUILD_METHOD = "__serve_build_asgi_app__"


class NotPicklable(SalverError):
    """An application that can only be imported."""


class Ingress:
    """An application as it was when it was put in front of a class.

    Args:
        app: The application, a function that builds one, or None where the class's `__serve_build_asgi_app__` does.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._is_builder = inspect.isfunction(app) and not inspect.signature(app).parameters
        self._routes = [(router, list(router.routes)) for router in _routers(app)]
        self._middleware = list(getattr(app, "user_middleware", []))

    def claim(self, cls: type) -> None:
        """Mark endpoints that are methods of a class, so that other classes with this application leave them out."""
        for _, routes in self._routes:
            for route in routes:
                endpoint = getattr(route, "endpoint", None)
                if _is_method(endpoint, cls):
                    setattr(endpoint, OWNER_ATTRIBUTE, cls)

    def application(self, instance: Any) -> AsgiApp:
        """Return the application for an instance of the decorated class; called once, in a replica.

        Raises:
            TypeError: What was built is no ASGI application.
        """
        if self.app is None:
            return _checked(getattr(instance, BUILD_METHOD)(), f"{type(instance).__name__}.{BUILD_METHOD}()")
        if self._is_builder:
            return _checked(self.app(), f"{_name(self.app)}()")
        for router, routes in self._routes:
            router.routes[:] = [bound for route in routes if (bound := _bound(route, instance)) is not None]
        if hasattr(self.app, "user_middleware"):
            self.app.user_middleware = list(self._middleware)
        return _checked(self.app, _name(self.app))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a class's ingress: its application by import path where it has one, else by value.

        Raises:
            NotPicklable: It has no import path, and holds routes: no version of FastAPI or Starlette pickles well.
        """
        path = _path_of(self.app)
        if path is not None:
            return _ingress_at, path
        if self._routes:
            raise NotPicklable(
                f"its {type(self.app).__name__} application has no import path, and such an application cannot be "
                "pickled. Move it to a module of its own and import it here, or give @serve.ingress a function that "
                "builds it."
            )
        return Ingress, (self.app,)


def ingress(app: Any = None) -> Callable[..., Any]:
    """Put an ASGI application in front of a class; `@serve.deployment` goes above it.

    Methods of the class may be endpoints of the application: `@app.get("/")` above `async def root(self)`. Called
    without a class, as in `serve.ingress(app)()`, it makes one.

    Args:
        app: A FastAPI application, an APIRouter, any ASGI callable, or a function without parameters that returns one,
            called on each replica. None: the class's method `__serve_build_asgi_app__` returns it.

    Raises:
        ValueError: What is decorated is no class, or a class with `__call__`.
    """

    def decorate(cls: C | None = None) -> Any:
        decorated: Any = type(f"Ingress_{_name(app)}", (), {}) if cls is None else cls
        if not isinstance(decorated, type):
            raise ValueError("@serve.ingress must be used with a class.")
        if any("__call__" in vars(each) for each in decorated.__mro__):
            raise ValueError("Classes passed to @serve.ingress may not have __call__ method.")
        if app is None and not hasattr(decorated, BUILD_METHOD):
            raise ValueError(f"@serve.ingress() without an application needs {decorated.__name__}.{BUILD_METHOD}().")
        # Only now: the class's body, with its endpoints, runs after `ingress(app)` was evaluated.
        remembered = Ingress(app)
        remembered.claim(decorated)
        setattr(decorated, INGRESS_ATTRIBUTE, remembered)
        return decorated

    return decorate


def ingress_of(servable: Any) -> Ingress | None:
    """Return what `@ingress` put in front of a class, or None."""
    return getattr(servable, INGRESS_ATTRIBUTE, None)


def _routers(app: Any) -> Iterator[Any]:
    """Yield everything below an application that has a list of routes: routers, included routers, mounted apps."""
    seen: set[int] = set()
    waiting = [getattr(app, "router", app)]
    while waiting:
        router = waiting.pop()
        routes = getattr(router, "routes", None)
        if not isinstance(routes, list) or id(router) in seen:
            continue
        seen.add(id(router))
        yield router
        for route in routes:
            # FastAPI keeps included routers whole; Starlette mounts applications.
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            waiting.append(getattr(inner, "router", inner))


def _is_method(endpoint: Any, cls: type) -> bool:
    name = getattr(endpoint, "__name__", None)
    return name is not None and any(vars(each).get(name) is endpoint for each in cls.__mro__)


def _bound(route: Any, instance: Any) -> Any:
    """Return the route with its endpoint bound, or None for a method of another class."""
    endpoint: Any = getattr(route, "endpoint", None)
    if _is_method(endpoint, type(instance)):
        method = getattr(instance, endpoint.__name__)
        return _with_endpoint(route, of_the_asked_replica(method) if shares_process() else method)
    return None if hasattr(endpoint, OWNER_ATTRIBUTE) else route


def _with_endpoint(route: Any, endpoint: Callable[..., Any]) -> Any:
    """Make the route again, so that FastAPI reads the endpoint's signature anew, this time without `self`.

    Routes keep what they were made of in attributes named like their parameters, in every version so far.
    """
    parameters = inspect.signature(type(route).__init__).parameters
    values = {name: getattr(route, name) for name in parameters if name != "self" and hasattr(route, name)}
    return type(route)(**{**values, "endpoint": endpoint})


def _checked(app: Any, source: str) -> AsgiApp:
    if hasattr(app, "include_router") and not hasattr(app, "openapi"):
        import fastapi  # noqa: PLC0415 - whoever has an APIRouter has it already

        router, app = app, fastapi.FastAPI()
        app.include_router(router)
    if not callable(app):
        raise TypeError(f"{source} must return an ASGI application, got {type(app).__name__}.")
    checked: AsgiApp = app
    return checked


def _path_of(app: Any) -> tuple[str, str] | None:
    """Return the module and the name under which an object can be imported, or None."""
    for module_name, module in list(sys.modules.items()):
        if module_name != "__main__":
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is app and app is not None:
                    return module_name, name
    return None


def _ingress_at(module: str, name: str) -> Ingress:
    __import__(module)
    return Ingress(getattr(sys.modules[module], name))


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))
