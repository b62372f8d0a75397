"""The wish, saved: what was asked survives the controller."""

import msgspec

from salver.controller.desired import WantedApplication
from salver.engine.base import KeyValueStore
from salver.schema.application import ApplicationSpec

_PREFIX = "application/"


class _Saved(msgspec.Struct, frozen=True):
    spec: ApplicationSpec
    deployed_at_s: float


class Checkpoint:
    """Keeps the wanted applications in a store.

    Args:
        store: Where to; saved before the wish is acknowledged.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def save(self, wanted: WantedApplication) -> None:
        """Save an application in place of an earlier one of its name."""
        self._store.put(_PREFIX + wanted.spec.name, msgspec.msgpack.encode(_Saved(wanted.spec, wanted.deployed_at_s)))

    def remove(self, name: str) -> None:
        """Forget an application."""
        self._store.delete(_PREFIX + name)

    def load(self) -> list[WantedApplication]:
        """Return all saved applications."""
        saved = [self._store.get(key) for key in self._store.keys(_PREFIX)]
        decoded = [msgspec.msgpack.decode(each, type=_Saved) for each in saved if each is not None]
        return [WantedApplication(each.spec, each.deployed_at_s) for each in decoded]

    def close(self) -> None:
        """Close the store."""
        self._store.close()
