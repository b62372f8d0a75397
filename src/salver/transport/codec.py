"""Python values to bytes and back: pickle protocol 5, by value (cloudpickle) only where there is no import path."""

import pickle
from typing import Any

import cloudpickle


def dumps(value: Any) -> bytes:
    """Pickle a value; classes and functions of `__main__`, closures and lambdas travel by value.

    Raises:
        Exception: Whatever pickling raised; `pickle.PicklingError` and `TypeError` mostly.
    """
    try:
        data = pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _dumps_by_value(value)
    # A class of __main__ pickles as a reference that no other process can follow.
    return _dumps_by_value(value) if b"__main__" in data else data


def _dumps_by_value(value: Any) -> bytes:
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


def loads(data: bytes) -> Any:
    """Unpickle bytes of a peer that was authenticated: a Unix socket in our own directory, or a known secret."""
    return pickle.loads(data)
