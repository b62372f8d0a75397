"""The key-value store: what was saved is there, also for the next who opens the file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.engine.store import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def test_a_value_is_kept_as_it_is(store: SqliteStore) -> None:
    value = bytes(range(256))
    store.put("key", value)
    assert store.get("key") == value


def test_an_empty_value_is_a_value(store: SqliteStore) -> None:
    store.put("key", b"")
    assert store.get("key") == b""


def test_the_last_value_wins(store: SqliteStore) -> None:
    store.put("key", b"one")
    store.put("key", b"two")
    assert store.get("key") == b"two"


def test_an_unknown_key_has_no_value(store: SqliteStore) -> None:
    assert store.get("nope") is None


def test_a_deleted_key_is_gone_and_may_be_deleted_again(store: SqliteStore) -> None:
    store.put("key", b"x")
    store.delete("key")
    store.delete("key")
    assert store.get("key") is None


def test_keys_are_found_by_their_beginning_and_sorted(store: SqliteStore) -> None:
    for key in ("app/b", "app/a", "app_x", "apq", "%", "app/"):
        store.put(key, b"x")
    assert store.keys("app/") == ["app/", "app/a", "app/b"]
    assert store.keys("app_") == ["app_x"]
    assert store.keys("%") == ["%"]
    assert store.keys() == sorted(["app/b", "app/a", "app_x", "apq", "%", "app/"])


def test_what_was_saved_outlives_the_store(path: Path) -> None:
    first = SqliteStore(path)
    first.put("key", b"value")
    # Not closed, as when the process is killed.
    second = SqliteStore(path)
    assert second.get("key") == b"value"
    second.close()
    first.close()
