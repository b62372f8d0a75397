"""`import salver as serve`: what is there."""

import subprocess
import sys

import pytest

import salver as serve


@pytest.mark.parametrize("name", serve.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(serve, name) is not None


@pytest.mark.parametrize("module", ["config", "context", "exceptions", "handle"])
def test_its_modules_need_no_import_of_their_own(module: str) -> None:
    code = f"import salver as serve; assert serve.{module}.__all__"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'salver' has no attribute 'nope'"):
        serve.nope  # type: ignore[attr-defined]  # noqa: B018
