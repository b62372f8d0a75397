"""What headers say about where, and how soon, a request should be served."""

from collections.abc import Callable
from typing import Final

from salver.handle.outgoing import Hints
from salver.schema.urgency import urgency_of


def _model_id(hints: Hints, value: bytes) -> Hints:
    return hints._replace(multiplexed_model_id=value.strip().decode("latin-1"))


def _session_id(hints: Hints, value: bytes) -> Hints:
    return hints._replace(session_id=value.strip().decode("latin-1"))


def _priority(hints: Hints, value: bytes) -> Hints:
    urgency = urgency_of(value)
    return hints if urgency is None else hints._replace(urgency=urgency)


HINT_HEADERS: Final[dict[bytes, Callable[[Hints, bytes], Hints]]] = {
    b"serve_multiplexed_model_id": _model_id,
    b"serve-multiplexed-model-id": _model_id,
    b"x-session-id": _session_id,
    b"x_session_id": _session_id,
    b"priority": _priority,
}
"""By the header's name: what its value adds to what is known."""
