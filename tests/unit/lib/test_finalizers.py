"""A `__del__` that was claimed is not called by Python."""

import gc
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from salver.lib.finalizers import claim_finalizer


class Model:
    ended: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def __del__(self) -> None:
        self.ended.append(self.name)


class Special(Model):
    """Inherits what ends it."""


@pytest.fixture(autouse=True)
def ended() -> Iterator[list[str]]:
    gc.collect()
    Model.ended.clear()
    yield Model.ended
    gc.collect()


def finalize(instance: Any) -> None:
    finalizer = claim_finalizer(instance)
    assert finalizer is not None
    finalizer(instance)


@pytest.mark.parametrize("cls", [Model, Special])
def test_what_was_finalized_by_name_is_not_finalized_again(cls: type[Model], ended: list[str]) -> None:
    model = cls("a")
    finalize(model)
    del model
    gc.collect()
    assert ended == ["a"]


@pytest.mark.parametrize("cls", [Model, Special])
def test_others_of_the_class_are_finalized_by_python(cls: type[Model], ended: list[str]) -> None:
    other = cls("other")
    finalize(cls("a"))
    del other
    gc.collect()
    assert sorted(ended) == ["a", "other"]


def test_a_thousand_objects_leave_nothing_behind_in_their_class(ended: list[str]) -> None:
    finalize(Model("first"))
    wrapper = Model.__del__
    for number in range(1000):
        finalize(Model(str(number)))
    assert Model.__del__ is wrapper
    assert wrapper.once.finalized == set()  # type: ignore[attr-defined]
    assert len(ended) == 1001


@pytest.mark.parametrize("thing", [3, None, "text"], ids=str)
def test_what_has_no_finalizer_has_none_to_claim(thing: object) -> None:
    assert claim_finalizer(thing) is None
