"""Places for runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.serving import Place, new_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A directory for an application, with a runtime directory of its own that must be empty at the end."""
    with new_place(tmp_path) as each:
        yield each
