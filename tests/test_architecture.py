"""The shape of the house: sizes, arrows, banned names and the shop window."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import salver

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "salver"

FILE_LINES = 400
FUNCTION_LINES = 50

# ruff bans these names (TID251), but a file that needs one is let off all of them: this is who may use which.
# A path that ends in a slash stands for all files below it.
ALLOWED_IN = {
    "asyncio.create_task": ["lib/tasks.py"],
    "asyncio.ensure_future": ["lib/tasks.py"],
    "asyncio.sleep": ["lib/"],
    "os.environ": ["schema/settings.py", "engine/"],
    "os.getenv": ["schema/settings.py"],
    "time.time": ["lib/clock.py"],
}


def sources() -> list[tuple[str, str]]:
    """Return the path and the text of every file of the package."""
    return [(path.relative_to(SRC).as_posix(), path.read_text("utf-8")) for path in sorted(SRC.rglob("*.py"))]


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions of a file, methods and inner ones too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function takes, its docstring too."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def names_used(text: str) -> Iterator[tuple[str, int]]:
    """Yield `module.name` and the line, for `module.name` and for `from module import name`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def test_every_file_is_short() -> None:
    long = [f"{path}: {lines} lines" for path, text in sources() if (lines := text.count("\n")) > FILE_LINES]
    assert long == [], f"a file has at most {FILE_LINES} lines"


def test_every_function_fits_on_a_screen() -> None:
    long = [
        f"{path}:{function.lineno} {function.name}: {length_of(function)} lines"
        for path, text in sources()
        for function in functions(text)
        if length_of(function) > FUNCTION_LINES
    ]
    assert long == [], f"a function has at most {FUNCTION_LINES} lines"


def test_banned_names_stay_in_their_rooms() -> None:
    strays = [
        f"{path}:{line} {name}"
        for path, text in sources()
        for name, line in names_used(text)
        if name in ALLOWED_IN and not path.startswith(tuple(ALLOWED_IN[name]))
    ]
    assert strays == [], f"these names belong to some files only: {ALLOWED_IN}"


def test_imports_follow_the_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_shop_window_is_sorted() -> None:
    def kind_then_name(name: str) -> tuple[bool, bool, str]:
        return not name.isupper(), not name[0].isupper(), name

    assert list(salver.__all__) == sorted(set(salver.__all__), key=kind_then_name)


@pytest.mark.parametrize("name", salver.__all__)
def test_whatever_is_public_exists_and_says_what_it_does(name: str) -> None:
    public = getattr(salver, name)
    if callable(public):
        assert inspect.getdoc(public), f"salver.{name} has no docstring"
