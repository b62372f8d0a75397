"""The user's router class, in whatever process calls the deployment."""

import sys
from pathlib import Path
from typing import Any

from salver.handle.request_router.api import RequestRouter
from salver.lib import preloaded
from salver.lib.importing import ImportFailed, get_attribute, import_module, refuse_namesake
from salver.lib.loading import set_loading
from salver.schema.application import ImportedCode, PickledCode, RouterSpec


def load_router_class(spec: RouterSpec) -> type[RequestRouter]:
    """Return the class of a spec.

    Raises:
        ImportFailed: There is no such class, or it is not a router.
        Exception: Whatever its module raises.
    """
    # Last, so that nothing in a project's directory gets into the way of what this process imports later.
    sys.path += [each for each in spec.search_path if each not in sys.path]
    match spec.code:
        case ImportedCode(module, qualname):
            found = _imported(module, qualname, spec.search_path)
        case PickledCode(digest):
            preloaded.load_all({digest: spec.blob})
            found = preloaded.get(digest)
        case None:
            raise ImportFailed("there is no class")
    return checked_router_class(found)


def checked_router_class(found: Any) -> type[RequestRouter]:
    """Return a class that routers can be made of.

    Raises:
        ImportFailed: It is something else.
    """
    if not isinstance(found, type) or not issubclass(found, RequestRouter):
        raise ImportFailed(f"{found!r} is no subclass of salver.request_router.RequestRouter.")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise ImportFailed(f"{found.__name__} does not define {', '.join(missing)}().")
    return found


def _imported(module: str, qualname: str, search_path: tuple[str, ...]) -> Any:
    is_new = module not in sys.modules
    if is_new:
        set_loading(module)
    try:
        found = import_module(module)
    finally:
        if is_new:
            set_loading(None)
    if (directory := _directory_of(module, search_path)) is not None:
        refuse_namesake(found, directory)
    return get_attribute(found, qualname)


def _directory_of(module: str, search_path: tuple[str, ...]) -> Path | None:
    """Return where the application's own processes find a module."""
    for entry in search_path:
        stem = Path(entry).resolve().joinpath(*module.split("."))
        if stem.with_suffix(".py").is_file() or (stem / "__init__.py").is_file():
            return Path(entry).resolve()
    return None
