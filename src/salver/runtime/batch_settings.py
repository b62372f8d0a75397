"""What may be said about batches, checked where it is said."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import Any

from salver.runtime.batch_queue import Limits, SizeOf


class _Default(float):
    """A wait that nobody has asked for."""


DEFAULT_WAIT_S = _Default(0.01)


@dataclass(slots=True)
class Settings:
    """What was said about the batches of a function.

    Attributes:
        target_latency_s: The goal of adaptive batching; None where size and wait are fixed.
    """

    max_batch_size: int
    batch_wait_timeout_s: float
    max_concurrent_batches: int
    batch_size_fn: SizeOf | None
    target_latency_s: float | None

    @property
    def limits(self) -> Limits:
        """Return what holds for the next batch, where nothing adapts it."""
        return Limits(self.max_batch_size, self.batch_wait_timeout_s)

    @property
    def longest_wait_s(self) -> float:
        """Return how long an adaptive wait may be: what the user has said, else as long as the whole latency."""
        if self.target_latency_s is not None and isinstance(self.batch_wait_timeout_s, _Default):
            return self.target_latency_s
        return self.batch_wait_timeout_s


def checked_max_batch_size(value: Any) -> int:
    """Return a size that may be used.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less than 1.
    """
    size = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(size, int):
        raise TypeError(f"max_batch_size must be an integer >= 1, got {value!r}")
    if size < 1:
        raise ValueError(f"max_batch_size must be an integer >= 1, got {value!r}")
    return size


def checked_wait(value: Any) -> float:
    """Return a wait that may be used.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"batch_wait_timeout_s must be a float >= 0, got {value!r}")
    if value < 0 or isnan(value):
        raise ValueError(f"batch_wait_timeout_s must be a float >= 0, got {value!r}")
    return value


def checked_max_concurrent_batches(value: Any) -> int:
    """Return a number of batches that may be used.

    Raises:
        TypeError: It is no integer, or less than 1.
    """
    if not isinstance(value, int) or value < 1:
        raise TypeError(f"max_concurrent_batches must be an integer >= 1, got {value!r}")
    return value


def checked_batch_size_fn(value: Any) -> Callable[..., Any] | None:
    """Return a function of sizes that may be used.

    Raises:
        TypeError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"batch_size_fn must be a callable or None, got {value!r}")
    return value  # type: ignore[no-any-return]


def checked_target_latency(value: Any) -> float | None:
    """Return a latency that may be aimed at.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive.
    """
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"target_latency_s must be a float > 0, got {value!r}")
    if not value > 0:
        raise ValueError(f"target_latency_s must be a float > 0, got {value!r}")
    return value
