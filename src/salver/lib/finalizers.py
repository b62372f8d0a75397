"""A `__del__` that is called by name, and not once more when Python collects the object."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

Finalizer = Callable[[Any], Any]


class _Once:
    """A class's `__del__`, which passes over the objects that were finalized already."""

    def __init__(self, finalizer: Finalizer) -> None:
        self.finalizer = finalizer
        self.finalized: set[int] = set()

    def of(self, cls: type) -> Finalizer:
        """Return what the class has as its `__del__` from now on."""

        def finalize(each: Any) -> Any:
            if id(each) not in self.finalized:
                return self.finalizer(each)
            # Whatever is made at the same place later has a finalizer again.
            self.finalized.discard(id(each))
            return None

        finalize.__qualname__ = f"{cls.__qualname__}.__del__"
        finalize.once = self  # type: ignore[attr-defined]
        return finalize


def claim_finalizer(instance: Any) -> Finalizer | None:
    """Return what an object's `__del__` is, to be called by whoever asks: Python will not call it for this object.

    None where its class has none. A class that cannot be changed, of an extension module, is finalized twice.
    """
    cls = type(instance)
    present = getattr(cls, "__del__", None)
    if present is None:
        return None
    once = getattr(cls.__dict__.get("__del__"), "once", None)
    if once is None:
        inherited = getattr(present, "once", None)
        once = _Once(present if inherited is None else inherited.finalizer)
        with suppress(TypeError):
            cls.__del__ = once.of(cls)
    once.finalized.add(id(instance))
    finalizer: Finalizer = once.finalizer
    return finalizer
