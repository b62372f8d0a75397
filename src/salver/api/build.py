"""From a bound graph to an `ApplicationSpec`: names, import paths, pickled arguments."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import cloudpickle
import msgspec

from salver.api.application import Application, parts_of
from salver.api.deployment import Deployment
from salver.api.routing import checked_routing
from salver.handle import DeploymentHandle
from salver.handle.policies import TWO_CHOICES
from salver.lib.preloaded import digest_of, keep
from salver.runtime.ingress import NotPicklable, ingress_of
from salver.schema.application import (
    ApplicationSpec,
    CodeRef,
    DeploymentSpec,
    ImportedCode,
    PickledCode,
    Preload,
    RouterSpec,
)
from salver.schema.errors import BuildFailed, InvalidOption
from salver.schema.options import Options


def build(
    target: Application,
    *,
    name: str,
    route_prefix: str | None,
    preload: Preload | None = None,
    in_this_process: bool = False,
) -> ApplicationSpec:
    """Return everything the controller needs to run an application.

    Args:
        preload: What its replicas have in memory first; by default this process's path and the modules in use.
        in_this_process: Its replicas run here, so code needs no pickling.

    Raises:
        BuildFailed: The graph has a cycle, or an argument cannot be pickled.
    """
    builder = _Builder(name, in_this_process=in_this_process)
    ingress = builder.add(target).deployment_name
    return ApplicationSpec(
        name=name,
        route_prefix=checked_route_prefix(route_prefix),
        ingress=ingress,
        version=uuid4().hex[:12],
        deployments=tuple(builder.specs.values()),
        preload=builder.preload(preload),
        warnings=tuple(builder.warnings),
    )


def checked_app_name(name: object) -> str:
    """Return an application's name.

    Raises:
        InvalidOption: It is empty or no text.
    """
    if not isinstance(name, str) or not name:
        raise InvalidOption("Application name must a non-empty string.")
    return name


def checked_route_prefix(route_prefix: object) -> str | None:
    """Return a route prefix that can be served.

    Raises:
        InvalidOption: It does not start with '/', ends with '/', or has braces.
    """
    if route_prefix is None or route_prefix == "/":
        return route_prefix and "/"
    if not isinstance(route_prefix, str):
        raise InvalidOption(f"Invalid route_prefix {route_prefix!r}, must be a string or None.")
    if not route_prefix.startswith("/"):
        raise InvalidOption(f"Invalid route_prefix '{route_prefix}', must start with a forward slash ('/').")
    if route_prefix.endswith("/"):
        raise InvalidOption(f"Invalid route_prefix '{route_prefix}', may not end with a trailing '/'.")
    if "{" in route_prefix or "}" in route_prefix:
        raise InvalidOption(f"Invalid route_prefix '{route_prefix}', may not contain wildcards.")
    return route_prefix


class _Builder:
    def __init__(self, app_name: str, *, in_this_process: bool) -> None:
        self.specs: dict[str, DeploymentSpec] = {}
        self.warnings: list[str] = []
        self._app_name = app_name
        self._handles: dict[int, DeploymentHandle[Any]] = {}
        self._path: list[Application] = []
        self._modules: dict[str, None] = {}
        self._blobs: dict[str, bytes] = {}
        self._ingress: str | None = None
        self._in_this_process = in_this_process

    def add(self, application: Application) -> DeploymentHandle[Any]:
        """Add an application and all it is bound to; return the handle that stands for it."""
        known = self._handles.get(id(application))
        if known is not None:
            return known
        if any(application is each for each in self._path):
            names = [parts_of(each)[0].name for each in [*self._path, application]]
            raise BuildFailed(f"The application has a cycle: {' → '.join(names)}. Deployments may not need themselves.")
        self._path.append(application)
        deployment, args, kwargs = parts_of(application)
        arguments = self._pickled_arguments(deployment.name, args, kwargs)
        self._path.pop()
        name = self._free_name(deployment.name)
        self._check_single_ingress(name, deployment)
        self.specs[name] = DeploymentSpec(
            name=name,
            code=self._code_of(deployment.name, deployment.func_or_class),
            arguments=arguments,
            options=_portable(deployment.all_options),
            router=self._router_of(name, deployment.all_options),
        )
        self._warn_of_useless_scaling(name, deployment.all_options)
        handle: DeploymentHandle[Any] = DeploymentHandle(name, self._app_name)
        self._handles[id(application)] = handle
        return handle

    def _check_single_ingress(self, name: str, deployment: Deployment[Any]) -> None:
        if ingress_of(deployment.func_or_class) is not None:
            if self._ingress is not None:
                raise BuildFailed(
                    f"Deployments '{self._ingress}' and '{name}' both have @serve.ingress; an application has one."
                )
            self._ingress = name

    def preload(self, given: Preload | None) -> Preload:
        """Return what replicas need in memory."""
        if given is None:
            given = Preload(
                working_dir=os.getcwd(),
                search_path=tuple(os.path.abspath(entry) for entry in sys.path),
                modules=tuple(self._modules),
            )
        return msgspec.structs.replace(given, blobs=self._blobs)

    def _pickled_arguments(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        for unbound in _deployments_in((args, kwargs)):
            raise BuildFailed(
                f"Deployment '{unbound.name}' was passed to .bind() of '{name}' unbound. "
                f"Pass `{unbound.name}.bind(...)` instead."
            )
        try:
            return self._pickled((args, kwargs))
        except BuildFailed:
            raise
        except Exception as error:
            raise BuildFailed(self._blame(name, args, kwargs, error)) from error

    def _pickled(self, value: Any) -> bytes:
        """Pickle a value with a handle in place of each bound application in it, at whatever depth."""
        file = io.BytesIO()
        _ArgumentPickler(file, self).dump(value)
        return file.getvalue()

    def _blame(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
        """Say which argument it is that cannot be pickled."""
        places = [(f"argument {index}", each) for index, each in enumerate(args, 1)]
        places += [(f"argument '{key}'", each) for key, each in kwargs.items()]
        for place, value in places:
            try:
                self._pickled(value)
            except Exception as reason:  # noqa: BLE001 - the user's own classes run while they are pickled
                return (
                    f"Deployment '{name}': {place} of .bind() ({type(value).__name__}) cannot be pickled: "
                    f"{_one_line(reason)}. Create it in __init__ instead, or pass what it is made from."
                )
        return f"Deployment '{name}': the arguments of .bind() cannot be pickled: {_one_line(error)}."

    def _warn_of_useless_scaling(self, name: str, options: Options) -> None:
        scaling = options.autoscaling_config
        if scaling is not None and options.max_ongoing_requests < scaling.target_ongoing_requests:
            self.warnings.append(
                f"Autoscaling will never happen for '{name}': its max_ongoing_requests "
                f"({options.max_ongoing_requests}) is less than its target_ongoing_requests "
                f"({scaling.target_ongoing_requests:g})."
            )

    def _free_name(self, name: str) -> str:
        if name not in self.specs:
            return name
        number = 1
        while f"{name}_{number}" in self.specs:
            number += 1
        self.warnings.append(
            f"Two deployments are named '{name}'; one of them is called '{name}_{number}'. "
            f"Give it a name of its own with .options(name=...)."
        )
        return f"{name}_{number}"

    def _code_of(self, name: str, code: Callable[..., Any]) -> CodeRef:
        path = import_path_of(code)
        if path is not None:
            self._modules[path.module] = None
            return path
        if self._in_this_process:
            kept = keep(code)
            self._blobs[kept] = b""
            return PickledCode(kept)
        blob = _pickled_code(name, code)
        digest = digest_of(blob)
        self._blobs[digest] = blob
        return PickledCode(digest)

    def _router_of(self, name: str, options: Options) -> RouterSpec | None:
        found, kwargs = checked_routing(options.request_router_config)
        if isinstance(found, str):
            return None if found == TWO_CHOICES else RouterSpec(policy=found, kwargs=kwargs)
        code = self._code_of(name, found)
        blob = _pickled_code(name, found) if isinstance(code, PickledCode) else b""
        return RouterSpec(code=code, blob=blob, kwargs=kwargs)


class _ArgumentPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles constructor arguments; finds bound applications wherever pickle looks, attributes of objects included."""

    def __init__(self, file: io.BytesIO, builder: _Builder) -> None:
        super().__init__(file, protocol=5)
        self._builder = builder

    def reducer_override(self, obj: Any) -> Any:
        """Say how an object is pickled; part of pickle.Pickler."""
        if isinstance(obj, Application):
            return self._builder.add(obj).__reduce__()
        return super().reducer_override(obj)


def _deployments_in(value: Any) -> Iterator[Deployment[Any]]:
    """Yield the deployments in a value that are not bound, in lists and the like at any depth."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Deployment):
            yield each
        elif isinstance(each, dict | list | tuple | set | frozenset) and id(each) not in seen:
            seen.add(id(each))
            waiting += [*each, *each.values()] if isinstance(each, dict) else each


def import_path_of(code: Callable[..., Any]) -> ImportedCode | None:
    """Return where code can be imported from; None for code of `__main__`, closures and the like."""
    module_name = getattr(code, "__module__", None)
    qualname = getattr(code, "__qualname__", None)
    if not module_name or not qualname or module_name == "__main__" or "<" in qualname:
        return None
    found: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is code or (isinstance(found, Deployment) and found.func_or_class is code):
        return ImportedCode(module_name, qualname)
    return None


def _portable(options: Options) -> Options:
    """Return options without classes; what travels of those is told apart from them."""
    config = options.request_router_config
    if config is None or isinstance(config.request_router_class, str):
        return options
    code = config.request_router_class
    named = msgspec.structs.replace(config, request_router_class=f"{code.__module__}:{code.__qualname__}")
    return msgspec.structs.replace(options, request_router_config=named)


def _pickled_code(name: str, code: Callable[..., Any]) -> bytes:
    try:
        return cloudpickle.dumps(code, protocol=5)  # type: ignore[no-any-return]
    except NotPicklable as error:
        raise BuildFailed(f"Deployment '{name}': {error}") from error
    except Exception as error:
        raise BuildFailed(
            f"Deployment '{name}': its code has no import path, and it refers to something that cannot be pickled "
            f"({_one_line(error)}). Move it to a module of its own, or create that object in __init__."
        ) from error


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
