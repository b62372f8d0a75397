"""What mypy and pyright say about code that uses typed handles."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(path for path in HERE.glob("*.py") if path.stem not in {"__init__", "test_types"})
_MARK = re.compile(r"# E(?:: (?P<checker>\w+))?$")
_MYPY_ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: ")

_PAGE = ROOT / "docs" / "typed_handles.md"
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

Line = tuple[str, int]
"""A file's name and the number of a line."""


def _expected(checker: str) -> set[Line]:
    lines = set()
    for path in FILES:
        for number, text in enumerate(path.read_text().splitlines(), 1):
            mark = _MARK.search(text)
            if mark is not None and mark["checker"] in (None, checker):
                lines.add((path.name, number))
    return lines


def test_the_files_have_lines_that_must_be_refused() -> None:
    assert len(_expected("pyright")) > 20
    assert _expected("pyright") < _expected("mypy")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The example of the documentation, as a file."""
    [block] = _BLOCK.findall(_PAGE.read_text(encoding="utf-8"))
    path = tmp_path / "typed_page.py"
    path.write_text(block)
    return path


@pytest.mark.timeout(300)
def test_mypy_refuses_the_marked_lines_and_no_others(tmp_path: Path, page: Path) -> None:
    api = pytest.importorskip("mypy.api")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    where = os.getcwd()
    os.chdir(ROOT)
    try:
        output, problems, _ = api.run([*options, *[str(path.relative_to(ROOT)) for path in FILES], str(page)])
    finally:
        os.chdir(where)
    assert problems == ""
    refused = {
        (Path(found["file"]).name, int(found["line"]))
        for line in output.splitlines()
        if (found := _MYPY_ERROR.match(line)) is not None
    }
    assert refused == _expected("mypy"), output


@pytest.mark.timeout(300)
def test_pyright_refuses_the_marked_lines_and_no_others(tmp_path: Path, page: Path) -> None:
    pytest.importorskip("basedpyright")
    settings = {
        "include": [str(path) for path in [*FILES, page]],
        "extraPaths": [str(ROOT / "src"), str(ROOT)],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(tmp_path)]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    refused = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found if each["severity"] == "error"
    }
    assert refused == _expected("pyright"), "\n".join(f"{each['file']}: {each['message']}" for each in found)
