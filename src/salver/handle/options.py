"""How a handle calls."""

from typing import NamedTuple, TypedDict


class CallOptions(NamedTuple):
    """How a handle calls.

    Attributes:
        by_reference: What the caller asked for; results stay where they are until they are awaited in any case.
        serialization: How arguments and results are encoded, by name; None for the usual.
    """

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    priority: int | None = None
    by_reference: bool = True
    serialization: tuple[str, str] | None = None


class SomeOptions(TypedDict, total=False):
    """The options of a handle that leave the types of its calls as they are; for type checkers."""

    multiplexed_model_id: str | None
    session_id: str | None
    priority: int | None
    request_serialization: str | None
    response_serialization: str | None
    _by_reference: bool | None
    _prefer_local_routing: bool | None
