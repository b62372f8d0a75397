"""Import paths to objects, and what is said when they lead nowhere."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.lib.importing import ImportFailed, Target, get_attribute, import_module, parse_target


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("main:app", Target("main", "app", None), id="module and attribute"),
        pytest.param("pkg.mod:app", Target("pkg.mod", "app", None), id="module of a package"),
        pytest.param("pkg.mod:Outer.app", Target("pkg.mod", "Outer.app", None), id="nested attribute"),
        pytest.param("main.app", Target("main", "app", None), id="dots only"),
        pytest.param("pkg.mod.app", Target("pkg.mod", "app", None), id="dots only in a package"),
    ],
)
def test_an_import_path_is_split_into_module_and_attribute(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", ["main", "main:", ":app", "a:b:c", ""])
def test_what_is_no_import_path_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ImportFailed, match="expected 'module:attribute', like 'main:app'"):
        parse_target(text)


def test_a_file_is_split_into_its_directory_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "serve_me.py").write_text("")
    assert parse_target(f"{tmp_path}/serve_me.py:app") == Target("serve_me", "app", str(tmp_path.resolve()))


def test_a_relative_file_is_found_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "serve_me.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert parse_target("serve_me.py:app") == Target("serve_me", "app", str(tmp_path.resolve()))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"gone\.py' does not exist"):
        parse_target(f"{tmp_path}/gone.py:app")


def test_a_file_without_an_attribute_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "serve_me.py").write_text("")
    with pytest.raises(ImportFailed, match=r"add the application's name, like '.*serve_me\.py:app'"):
        parse_target(f"{tmp_path}/serve_me.py")


def test_a_module_is_imported_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "fresh_module.py").write_text("app = 7")
    assert import_module("fresh_module", str(tmp_path)).app == 7


def test_a_module_is_imported_from_a_directory_named_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "fresh_module.py").write_text("app = 7")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert import_module("fresh_module", str(tmp_path / "link")).app == 7


def test_an_installed_module_may_be_imported_with_a_directory_given(tmp_path: Path) -> None:
    assert import_module("json.decoder", str(tmp_path)).__name__ == "json.decoder"


def test_a_missing_module_is_named_together_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=f"No module named 'no_such_module'. Looked in {tmp_path}"):
        import_module("no_such_module", str(tmp_path))


def test_a_missing_package_of_a_module_is_named() -> None:
    with pytest.raises(ImportFailed, match="No module named 'no_such_package'"):
        import_module("no_such_package.module")


def test_a_module_that_lacks_one_of_its_own_imports_fails_with_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        import_module("needs_more", str(tmp_path))


def test_an_error_in_a_module_passes_through(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_module("breaks", str(tmp_path))


def test_a_file_with_the_name_of_another_module_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("app = 7")
    with pytest.raises(ImportFailed, match=r"'json' is already the name of another module .*; rename .*json\.py"):
        import_module("json", str(tmp_path))


def test_a_file_with_the_name_of_a_built_in_module_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "sys.py").write_text("app = 7")
    with pytest.raises(ImportFailed, match="built into Python"):
        import_module("sys", str(tmp_path))


def test_a_nested_attribute_is_followed() -> None:
    assert get_attribute(import_module("pathlib"), "Path.cwd") == Path.cwd


def test_a_misspelt_attribute_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ImportFailed, match=r"Module 'json' has no attribute 'lods'\. Did you mean 'loads'\?"):
        get_attribute(import_module("json"), "lods")


def test_an_attribute_with_no_near_name_is_just_missing() -> None:
    with pytest.raises(ImportFailed, match=r"Module 'json' has no attribute 'qqqqqqq'\.$"):
        get_attribute(import_module("json"), "qqqqqqq")
