"""One run for each module of tests; none of them may disturb it."""

from collections.abc import Iterator

import pytest

from tests.conformance.target import Target, new_target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with new_target(tmp_path_factory.mktemp("conformance")) as each:
        yield each
