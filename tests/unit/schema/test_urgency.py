"""How urgent a request is."""

import pytest

from salver.schema.errors import InvalidOption
from salver.schema.urgency import checked_urgency, urgency_of


@pytest.mark.parametrize(
    ("header", "urgency"),
    [
        (b"u=0", 0),
        (b"u=7", 7),
        (b"u=1, i", 1),
        (b"i, u=5", 5),
        (b" i ,  u=2 ", 2),
        (b"u=1;x=2", 1),
        (b"u=1, u=4", 4),
        (b"", None),
        (b"i", None),
        (b"u", None),
        (b"u=8", None),
        (b"u=-1", None),
        (b"u=1.0", None),
        (b"u=12", None),
        (b'u="1"', None),
        (b"U=1", None),
        (b"uu=1", None),
        (b"\xff\xfe=,;=", None),
    ],
)
def test_a_priority_header_is_read_as_rfc_9218_says(header: bytes, urgency: int | None) -> None:
    assert urgency_of(header) == urgency


def test_a_priority_is_an_integer_from_0_to_7() -> None:
    assert [checked_urgency(each) for each in range(8)] == list(range(8))
    for wrong in (-1, 8, 1.0, "1", True):
        with pytest.raises(InvalidOption, match="'priority' got"):
            checked_urgency(wrong)
