"""Pickled values: by reference where there is an import path, by value where there is none."""

import pickle
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from salver.schema.ids import DeploymentID
from salver.transport.codec import dumps, loads


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, "x", b"y", (1, 2), {3}]},
        DeploymentID("model"),
        ValueError("no"),
        "a text with __main__ in it",
    ],
    ids=["None", "containers", "struct", "error", "the word"],
)
def test_a_value_comes_back_equal(value: object) -> None:
    again = loads(dumps(value))
    assert repr(again) == repr(value)


def test_code_with_an_import_path_travels_by_reference() -> None:
    assert loads(dumps(DeploymentID)) is DeploymentID
    assert dumps(DeploymentID) == pickle.dumps(DeploymentID, protocol=5)


def test_closures_and_lambdas_travel_by_value() -> None:
    def adder(number: int) -> Callable[[int], int]:
        return lambda other: number + other

    assert loads(dumps(adder(2)))(3) == 5
    assert loads(dumps(adder))(2)(3) == 5


def test_an_object_of_a_local_class_travels_by_value() -> None:
    class Local:
        def __init__(self) -> None:
            self.number = 4

    assert loads(dumps([Local()]))[0].number == 4


def test_what_main_defines_can_be_loaded_where_main_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "class Point:\n    def __init__(self, x): self.x = x\ndef double(n): return 2 * n\n"
    main = ModuleType("__main__")
    exec(script, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    data = dumps((main.Point(3), main.double))
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    point, double = loads(data)
    assert (point.x, double(4)) == (3, 8)


@pytest.mark.parametrize("make", [threading.Lock, lambda: (each for each in [1])], ids=["lock", "generator"])
def test_what_cannot_be_pickled_says_so(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, pickle.PicklingError)):
        dumps({"value": make()})
