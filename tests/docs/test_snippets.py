"""Every code block of the documentation that says so is run: as an application over HTTP, a script, or tests."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.serving import get, new_place

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- test: (?P<how>[^>]*?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)

ASKS = {
    "hello.py": ("/?name=Ada", '{"greeting":"Hello, Ada!"}'),
    "square.py": ("/?x=12", "144.0"),
    "pipeline.py": ("/", '{"words":0}'),
    "build.py": ("/", "Bonjour"),
    "api.py": ("/factor", "3.0"),
    "chat.py": ("/people", "0"),
    "fallback.py": ("/", '["bestsellers"]'),
    "cleanup.py": ("/", "4"),
    "typed.py": ("/", "3"),
    "health.py": ("/", "connected"),
    "shards.py": ("/", "4 shards"),
    "where.py": ("/", "default at /"),
    "greeter.py": ("/", "Hello"),
    "served.py": ("/?x=3", "9"),
    "ranked.py": ("/?batch=1", "scored"),
    "sharded.py": ("/?key=a", "1"),
    "shop.py": ("/openapi.json", None),
}


class Block(NamedTuple):
    """A code block and how it is tested."""

    page: Path
    how: str
    code: str


def _blocks() -> list[Block]:
    return [
        Block(page, (found["how"] or "").strip(), found["code"])
        for page in PAGES
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


BLOCKS = _blocks()


def test_every_python_block_says_how_it_is_tested() -> None:
    assert [(block.page.name, block.code[:40]) for block in BLOCKS if not block.how] == []
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{block.page.stem}-{block.how}" for block in BLOCKS])
def test_a_block_does_what_the_page_says(block: Block, tmp_path: Path) -> None:
    kind, *rest = block.how.split()
    with new_place(tmp_path) as place:
        for other in BLOCKS:
            if other.page == block.page and other.how.startswith("app "):
                (tmp_path / other.how.split()[1]).write_text(other.code)
        if kind == "script":
            (tmp_path / "script.py").write_text(block.code)
            with place.start("script.py") as run:
                assert run.exit_code() == 0, run.output
                return
        if kind == "tests":
            (tmp_path / "test_page.py").write_text(block.code)
            with place.start("-m", "pytest", "-q", "-o", "asyncio_mode=auto", "test_page.py") as run:
                assert run.exit_code() == 0, run.output
                return
        file, *arguments = rest
        if kind == "client":
            (tmp_path / "client.py").write_text(block.code)
            with place.run(f"{file}:app") as run:
                run.url()
                with place.start("client.py") as client:
                    assert client.exit_code() == 0, client.output
            return
        path, expected = ASKS[file]
        with place.run(f"{file}:app", *[each for each in arguments if "=" in each]) as run:
            answer = get(run.url() + path)
            assert answer.status_code == 200
            assert answer.text == expected or expected is None
