"""Values that each process has one of, where threads may stand for processes."""

from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_OF_THIS_PROCESS: "dict[ProcessLocal[Any], Any]" = {}
_values: "ContextVar[dict[ProcessLocal[Any], Any]]" = ContextVar("salver_process", default=_OF_THIS_PROCESS)


class ProcessLocal(Generic[T]):
    """A value of the process, or of the thread that stands for one: see `become_process`."""

    def get(self) -> T | None:
        """Return the value, or None where nobody has set one."""
        return _values.get().get(self)

    def set(self, value: T | None) -> None:
        """Change the value, for all of the process."""
        _values.get()[self] = value


def shares_process() -> bool:
    """Say whether this is a thread that stands for a process."""
    return _values.get() is not _OF_THIS_PROCESS


def become_process() -> None:
    """Make what the current context leads to a process of its own: it begins without values, and shares none."""
    _values.set({})
