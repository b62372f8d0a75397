"""What every key-value store promises: the one in memory and SQLite's, by the same tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.engine.base import KeyValueStore
from salver.engine.fake import MemoryStore
from salver.engine.store import SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValueStore]:
    each = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.sqlite")
    yield each
    each.close()


def test_an_unknown_key_has_no_value(store: KeyValueStore) -> None:
    assert store.get("a") is None


@pytest.mark.parametrize("value", [b"", b"\0\xff", b"x" * 1_000_000], ids=["empty", "binary", "large"])
def test_a_value_comes_back_as_it_was_saved(store: KeyValueStore, value: bytes) -> None:
    store.put("a", value)
    assert store.get("a") == value


def test_the_last_value_wins(store: KeyValueStore) -> None:
    store.put("a", b"1")
    store.put("a", b"2")
    assert store.get("a") == b"2"


def test_a_deleted_key_is_gone_and_deleting_it_again_is_no_error(store: KeyValueStore) -> None:
    store.put("a", b"1")
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None
    assert store.keys() == []


def test_keys_are_sorted_and_chosen_by_prefix(store: KeyValueStore) -> None:
    for key in ("b/2", "a/1", "b/1", "b%", "B/1"):
        store.put(key, b"")
    assert store.keys() == ["B/1", "a/1", "b%", "b/1", "b/2"]
    assert store.keys("b/") == ["b/1", "b/2"]
    assert store.keys("%") == []


def test_sqlite_keeps_values_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    first = SqliteStore(path)
    first.put("a", b"1")
    # Not closed: a process that is killed does not either.
    second = SqliteStore(path)
    assert second.get("a") == b"1"
    second.close()
    first.close()
