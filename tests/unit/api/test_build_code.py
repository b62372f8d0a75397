"""Where code comes from on a replica: an import path where it has one, else a blob; and what is in memory first."""

import json
import os
import pickle
import sys
import threading
from functools import partial
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

import salver as serve
from salver.api.build import import_path_of
from salver.lib.preloaded import digest_of
from salver.schema.application import ImportedCode, PickledCode, Preload
from salver.schema.errors import BuildFailed
from tests.unit.api.test_build import arguments, built, deployment_of


@serve.deployment
class Model:
    """Takes anything."""

    def __init__(self, *args: Any) -> None:
        self.args = args


@serve.deployment
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


class Plain:
    """Code with a name of its own, decorated under another."""

    class Inner:
        """Nested code."""


class Shadowed:
    """Its module will have another object of this name."""


Renamed = serve.deployment(Plain, name="renamed")


# ── Code ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("deployment", "qualname"),
    [
        pytest.param(Model, "Model", id="class"),
        pytest.param(double, "double", id="function"),
        pytest.param(Model.options(name="other", num_replicas=2), "Model", id="copy"),
        pytest.param(Renamed, "Plain", id="decorated elsewhere"),
        pytest.param(serve.deployment(Plain.Inner), "Plain.Inner", id="nested class"),
        pytest.param(serve.deployment(json.dumps), "dumps", id="function of a library"),
    ],
)
def test_code_with_an_import_path_is_named_and_its_module_preloaded(deployment: Any, qualname: str) -> None:
    spec = built(deployment.bind())
    code = deployment_of(spec).code
    assert isinstance(code, ImportedCode)
    assert code.qualname == qualname
    assert spec.preload.modules == (code.module,)
    assert spec.preload.blobs == {}


class Answering:
    """Its instances can be called."""

    def __call__(self) -> int:
        """Answer."""
        return 7


def local_code() -> type:
    """Return a class without an import path."""

    class Local:
        pass

    return Local


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(local_code(), id="local class"),
        pytest.param(lambda: 7, id="lambda"),
        pytest.param(partial(max, 1), id="partial"),
        pytest.param(Answering(), id="object"),
        pytest.param(Shadowed, id="shadowed"),
    ],
)
def test_code_without_an_import_path_travels_as_a_blob(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Shadowed", None)
    spec = built(serve.deployment(code).bind())
    reference = deployment_of(spec).code
    assert isinstance(reference, PickledCode)
    blob = spec.preload.blobs[reference.digest]
    assert digest_of(blob) == reference.digest
    assert callable(pickle.loads(blob))
    assert spec.preload.modules == ()


def test_code_of_the_main_module_has_no_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "__module__", "__main__")
    assert import_path_of(Plain) is None


@pytest.mark.parametrize("place", [None, ModuleType("elsewhere")], ids=["no such module", "another object there"])
def test_code_that_its_module_does_not_have_has_no_import_path(
    place: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "__module__", "elsewhere")
    if place is not None:
        monkeypatch.setitem(sys.modules, "elsewhere", place)
    assert import_path_of(Plain) is None


def test_code_that_can_be_neither_imported_nor_pickled_is_named() -> None:
    lock = threading.Lock()

    @serve.deployment
    def locked() -> object:
        return lock

    with pytest.raises(BuildFailed, match=r"'locked': its code has no import path.*_thread\.lock.*Move it to a module"):
        built(locked.bind())


def test_the_same_local_code_is_one_blob() -> None:
    local = serve.deployment(local_code())
    spec = built(local.bind(local.options(name="other").bind()))
    assert len(spec.deployments) == 2
    assert len(spec.preload.blobs) == 1


# ── What replicas have in memory ────────────────────────────────────────────────────────────────────────────────────


def test_replicas_find_what_this_process_finds() -> None:
    preload = built(Model.bind(Model.bind(), double.bind())).preload
    assert preload.working_dir == os.getcwd()
    assert preload.search_path == tuple(os.path.abspath(entry) for entry in sys.path)
    assert preload.modules == (__name__,)


def test_a_given_preload_is_kept_and_gets_the_blobs() -> None:
    given_preload = Preload("/somewhere", ("/a",), ("main",), env={"A": "1"})
    spec = built(serve.deployment(local_code()).bind(), preload=given_preload)
    assert spec.preload.blobs
    assert (spec.preload.working_dir, spec.preload.search_path) == ("/somewhere", ("/a",))
    assert (spec.preload.modules, spec.preload.env) == (("main",), {"A": "1"})
    assert given_preload.blobs == {}


def test_arguments_by_value_need_no_module_of_this_process() -> None:
    args, _ = arguments(built(Model.bind(cloudpickle.loads(cloudpickle.dumps(lambda: 7)))))
    assert args[0]() == 7
