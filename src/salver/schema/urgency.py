"""How urgent a request is: 0 (at once) to 7 (in the background), as RFC 9218 has it."""

from typing import Final

from salver.schema.errors import InvalidOption

MOST_URGENT: Final = 0
LEAST_URGENT: Final = 7
DEFAULT_URGENCY: Final = 3


def urgency_of(header: bytes) -> int | None:
    """Return the urgency that a `Priority` header says, or None where it says none; what is not allowed is ignored.

    The header is a dictionary of RFC 8941, like `u=1, i`; the last `u` counts.
    """
    found = None
    for member in header.split(b","):
        name, _, value = member.partition(b";")[0].strip().partition(b"=")
        if name == b"u" and len(value) == 1 and b"0" <= value <= b"7":
            found = int(value)
    return found


def checked_urgency(priority: object) -> int:
    """Return what a caller says as its priority.

    Raises:
        InvalidOption: It is no integer from 0 to 7.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not MOST_URGENT <= priority <= LEAST_URGENT:
        raise InvalidOption(
            f"Option 'priority' got {priority!r}: expected an integer from {MOST_URGENT}, the most urgent, "
            f"to {LEAST_URGENT}."
        )
    return priority
