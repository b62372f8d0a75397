"""From `request_router_config` to what callers are told: one of Salver's own policies, or a class of the user's."""

import importlib
import inspect
from typing import Any

from salver.handle.policies import POLICY_NAMES, TWO_CHOICES, checked_arguments
from salver.handle.request_router.api import RequestRouter
from salver.handle.request_router.builtin import POLICY_OF
from salver.handle.request_router.loading import checked_router_class
from salver.lib.importing import ImportFailed
from salver.schema.conversion import nearest
from salver.schema.errors import InvalidOption
from salver.schema.options import RequestRouterConfig

_OPTION = "Option 'request_router_config.request_router_class'"
_BY_CLASS_NAME = {each.__name__: name for each, name in POLICY_OF.items()}


def checked_routing(config: RequestRouterConfig | None) -> tuple[str | type[RequestRouter], dict[str, Any]]:
    """Return a policy's name or a class of the user's, and its arguments.

    Raises:
        ModuleNotFoundError: The class's module does not exist.
        AttributeError: The module has no such class.
        InvalidOption: It is no router, or takes other arguments.
    """
    if config is None:
        return TWO_CHOICES, {}
    found = _found(config.request_router_class)
    kwargs = config.request_router_kwargs
    if isinstance(found, str):
        return found, checked_arguments(found, kwargs)
    try:
        inspect.signature(found.initialize_state).bind(None, **kwargs)
    except TypeError as error:
        raise InvalidOption(
            f"Option 'request_router_config.request_router_kwargs' got {kwargs!r}, which "
            f"{found.__name__}.initialize_state() does not take: {error}."
        ) from None
    return found, kwargs


def _found(given: Any) -> str | type[RequestRouter]:
    if isinstance(given, str):
        if given in POLICY_NAMES:
            return given
        module, _, name = given.partition(":") if ":" in given else given.rpartition(".")
        if not module or not name:
            raise InvalidOption(
                f"{_OPTION} got {given!r}: expected a policy's name or 'module:Class'.{nearest(given, POLICY_NAMES)}"
            )
        if module.startswith("ray.serve.") and name in _BY_CLASS_NAME:
            return _BY_CLASS_NAME[name]
        given = importlib.import_module(module)
        for part in name.split("."):
            given = getattr(given, part)
    try:
        found = checked_router_class(given)
    except ImportFailed as error:
        raise InvalidOption(f"{_OPTION}: {error}") from None
    return POLICY_OF.get(found, found)
