"""Objects that a zygote unpickled once for all the processes it forks, by digest."""

import pickle
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import count
from typing import Any

_objects: dict[str, Any] = {}
_numbers = count(1)


def digest_of(blob: bytes) -> str:
    """Return the name under which a pickled object is kept."""
    return sha256(blob).hexdigest()[:32]


def load_all(blobs: Mapping[str, bytes]) -> None:
    """Unpickle the blobs that are not here yet; errors of the user's code pass through."""
    for digest, blob in blobs.items():
        if digest not in _objects:
            _objects[digest] = pickle.loads(blob)


def keep(code: Any) -> str:
    """Keep an object as it is, for threads of this process, and return its name."""
    name = f"object-{next(_numbers)}"
    _objects[name] = code
    return name


def forget(digests: Iterable[str]) -> None:
    """Keep these no longer; unknown ones are no error."""
    for digest in digests:
        _objects.pop(digest, None)


def get(digest: str) -> Any:
    """Return a preloaded object.

    Raises:
        KeyError: It was never loaded here.
    """
    return _objects[digest]
