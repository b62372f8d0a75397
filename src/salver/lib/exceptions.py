"""Exceptions without their constructors: taken apart, and put together again, in another process or as another type.

A constructor may want arguments that nobody remembers, so none of the user's is ever called here: what the built-in
base keeps of its own is set by that base, everything else is copied.
"""

from typing import Any, NamedTuple


class PackedException(NamedTuple):
    """An exception taken apart: its type, what its built-in base was made of, and its attributes."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, Any]


def packed(error: BaseException) -> PackedException:
    """Take an exception apart; its traceback, cause and context stay behind."""
    kind = type(error)
    made_of: Any = _built_in(kind).__reduce__(error)
    _, args, *state = made_of
    attributes = dict(state[0]) if state and state[0] else {}
    for name in _slots(kind):
        if hasattr(error, name):
            attributes[name] = getattr(error, name)
    return PackedException(kind, args, attributes)


def unpacked(parts: PackedException, kind: type[BaseException] | None = None) -> BaseException:
    """Put an exception together again, as its own type or another.

    Raises:
        TypeError: The type's built-in base is not made of such arguments, or the type is not written in Python.
    """
    kind = kind or parts.kind
    base: Any = _built_in(kind)
    error: BaseException = base.__new__(kind, *parts.args)
    base.__init__(error, *parts.args)
    for name, value in parts.attributes.items():
        try:
            # Past the type's own `__setattr__`: a frozen dataclass may be an exception, too.
            object.__setattr__(error, name, value)
        except AttributeError:
            error.__dict__[name] = value
    return error


def pickles_itself(error: BaseException) -> bool:
    """Say whether the error's type says how it is pickled, so that it should not be packed."""
    mine = [each for each in type(error).__mro__ if not _is_built_in(each)]
    return any(name in vars(each) for each in mine for name in ("__reduce__", "__reduce_ex__", "__getstate__"))


def _built_in(kind: type[BaseException]) -> type[BaseException]:
    return next(each for each in kind.__mro__ if _is_built_in(each) and issubclass(each, BaseException))


def _is_built_in(kind: type) -> bool:
    return kind.__module__ == "builtins"


def _slots(kind: type) -> list[str]:
    names = []
    for each in kind.__mro__:
        own = vars(each).get("__slots__", ())
        for name in (own,) if isinstance(own, str) else own:
            mangled = name.startswith("__") and not name.endswith("__")
            names.append(f"_{each.__name__.lstrip('_')}{name}" if mangled else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]
