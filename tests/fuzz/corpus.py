"""Inputs that once went wrong, or nearly: one file each, and tests run all."""

import hashlib
from pathlib import Path

from tests.fuzz.mutation import Input

FOLDER = Path(__file__).parents[1] / "corpus"


def load(target: str) -> dict[str, Input]:
    """Return the inputs of a target by name; each whole, a byte at a time, and cut in two."""
    found = {}
    for path in sorted((FOLDER / target).glob("*.bin")):
        data = path.read_bytes()
        found[f"{path.stem}-whole"] = Input(data)
        found[f"{path.stem}-bytewise"] = Input(data, tuple(range(1, min(len(data), 2000))))
        found[f"{path.stem}-halves"] = Input(data, (len(data) // 2,))
    return found


def save(target: str, case: Input) -> Path:
    """Write an input; return where."""
    path = FOLDER / target / f"{hashlib.sha256(case.data).hexdigest()[:12]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(case.data)
    return path
