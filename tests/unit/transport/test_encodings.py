"""Ways to encode arguments and results besides pickling."""

from typing import Any

import pytest

from salver.transport.encodings import ENCODINGS, decode, pack_as
from salver.transport.payloads import Payload


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("value", [None, 5, "text", [1, {"a": [2.5, True]}]], ids=str)
def test_plain_values_come_back(name: str, value: Any) -> None:
    packed = pack_as(value, ENCODINGS[name])
    assert isinstance(packed, bytes)
    assert decode(packed, ENCODINGS[name]) == value


@pytest.mark.parametrize("name", ENCODINGS)
def test_large_values_become_payloads(name: str) -> None:
    assert isinstance(pack_as("x" * 100_000, ENCODINGS[name]), Payload)


@pytest.mark.parametrize("name", ["msgpack", "orjson"])
def test_what_has_no_such_form_is_refused(name: str) -> None:
    with pytest.raises(TypeError):
        pack_as(object(), ENCODINGS[name])
