""" "pkg.mod:attr" and "path/file.py:attr" to objects, with errors that say what to do."""

import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class ImportFailed(Exception):
    """An import path that leads nowhere; the message is written for the person who typed it."""


class Target(NamedTuple):
    """A parsed import path: a module, an attribute of it, and the directory to look in first."""

    module: str
    attribute: str
    search_path: str | None


def parse_target(text: str) -> Target:
    """Split `module:attr`, `module.attr` or `path/to/file.py:attr`.

    Raises:
        ImportFailed: The text has another form, or names a file that does not exist.
    """
    where, colon, attribute = text.partition(":")
    if where.endswith(".py") or "/" in where:
        return _parse_file(text, where, attribute)
    if not colon:
        where, _, attribute = text.rpartition(".")
    if not where or not attribute or ":" in attribute:
        raise ImportFailed(f"'{text}' is not an import path; expected 'module:attribute', like 'main:app'.")
    return Target(where, attribute, None)


def _parse_file(text: str, where: str, attribute: str) -> Target:
    path = Path(where).resolve()
    if not path.is_file():
        raise ImportFailed(f"File '{where}' does not exist (from '{text}', looked in {path.parent}).")
    if not attribute:
        raise ImportFailed(f"'{text}' names a file only; add the application's name, like '{text}:app'.")
    return Target(path.stem, attribute, str(path.parent))


def import_module(name: str, search_path: str | None = None) -> ModuleType:
    """Import a module, the given directory first.

    Raises:
        ImportFailed: No such module, or another module of the same name is in the way. Errors that the module's
            own code raises pass through untouched.
    """
    if search_path is not None and search_path not in sys.path:
        sys.path.insert(0, search_path)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ImportFailed(
            f"No module named '{error.name}'. Looked in {search_path or 'the current directory'} and the "
            "installed packages; check the spelling, or run from the project's directory."
        ) from None
    if search_path is not None:
        refuse_namesake(module, Path(search_path).resolve())
    return module


def refuse_namesake(module: ModuleType, directory: Path) -> None:
    """Refuse a module that was found elsewhere although the directory has a file of that name.

    Raises:
        ImportFailed: It was.
    """
    stem = directory.joinpath(*module.__name__.split("."))
    expected = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    found = getattr(module, "__file__", None)
    if expected is not None and (found is None or Path(found).resolve() != expected.resolve()):
        where = found or "built into Python"
        raise ImportFailed(f"'{module.__name__}' is already the name of another module ({where}); rename {expected}.")


def get_attribute(module: ModuleType, path: str) -> Any:
    """Follow a dotted attribute path from a module.

    Raises:
        ImportFailed: An attribute is missing; the message names the nearest one that exists.
    """
    value: Any = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            near = difflib.get_close_matches(part, [name for name in dir(value) if not name.startswith("_")], n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ImportFailed(f"Module '{module.__name__}' has no attribute '{path}'.{hint}") from None
    return value
