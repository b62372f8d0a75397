"""What type checkers know of a batched function: one item in, one result out."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from collections.abc import AsyncGenerator
from typing import assert_type

import salver as serve


class Model:
    @serve.batch(max_batch_size=4)
    async def handle(self, items: list[int]) -> list[str]:
        return [str(item) for item in items]

    @serve.batch
    async def bare(self, items: list[int]) -> list[str]:
        return [str(item) for item in items]

    @serve.batch()
    async def two(self, items: list[int], scales: list[float]) -> list[bytes]:
        return [b"" for _ in items]

    @serve.batch()
    async def stream(self, items: list[int]) -> AsyncGenerator[list[str], None]:
        yield [str(item) for item in items]


@serve.batch
async def function(items: list[int]) -> list[str]:
    return [str(item) for item in items]


async def main(model: Model) -> None:
    assert_type(await model.handle(1), str)
    assert_type(await model.handle(items=1), str)
    assert_type(await model.bare(1), str)
    assert_type(await model.two(1, 2.0), bytes)
    assert_type(await function(1), str)
    async for part in model.stream(1):
        assert_type(part, str)
    model.handle.set_max_batch_size(8)
"""
WRONG = """
    await model.handle("one")
    await model.handle(1, 2)
    await function([1])
    model.stream("one")
"""


def _checked(program: str, path: Path) -> str:
    file = path / "program.py"
    file.write_text(program)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml"), str(file)]
    checked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return checked.stdout + checked.stderr


def test_a_call_is_typed_as_one_item_in_and_one_result_out(tmp_path: Path) -> None:
    output = _checked(PROGRAM + WRONG, tmp_path)
    first_wrong = PROGRAM.count("\n") + 2
    lines = [int(line.split(":")[1]) for line in output.splitlines() if ": error:" in line]
    assert lines == list(range(first_wrong, first_wrong + 4)), output
