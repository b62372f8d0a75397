"""How a handle calls."""

from typing import NamedTuple


class CallOptions(NamedTuple):
    """How a handle calls.

    Attributes:
        prefer_local: Near replicas go first.
        by_reference: What the caller asked for; results stay where they are until they are awaited in any case.
        serialization: How arguments and results are encoded, by name; None for the usual.
    """

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    priority: int | None = None
    stream: bool = False
    prefer_local: bool = False
    by_reference: bool = True
    serialization: tuple[str, str] | None = None
