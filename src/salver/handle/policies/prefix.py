"""Affinity by what a request begins with: prompts with the same beginning find it in the same replica's cache."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from salver.handle.outgoing import HttpRequest
from salver.handle.policies.hashing import (
    NUM_FALLBACK_REPLICAS,
    NUM_VIRTUAL_NODES,
    ConsistentHash,
    session_or_request,
)

if TYPE_CHECKING:
    from salver.handle.outgoing import Outgoing

PREFIX_LENGTH = 256


class PrefixAffinity(ConsistentHash):
    """The replica that a prefix of an argument prefers.

    Args:
        argument: The argument's position or name; over HTTP the request's body is argument 0.
        field: Where in the argument to look, like "prompt" or "messages.0.content"; "" for all of it. A body is JSON
            then.
        prefix_length: So many characters count.
    """

    def __init__(
        self,
        argument: int | str = 0,
        field: str = "",
        prefix_length: int = PREFIX_LENGTH,
        num_virtual_nodes: int = NUM_VIRTUAL_NODES,
        num_fallback_replicas: int = NUM_FALLBACK_REPLICAS,
    ) -> None:
        self._argument = argument
        self._field = field
        self._length = prefix_length
        super().__init__(num_virtual_nodes, num_fallback_replicas, self._prefix_or_session)

    def _prefix_or_session(self, outgoing: "Outgoing") -> str:
        args, kwargs = arguments_of(outgoing)
        return prefix_in(args, kwargs, self._argument, self._field, self._length) or session_or_request(outgoing)


def arguments_of(outgoing: "Outgoing") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a request's arguments, or none where they cannot be looked at here."""
    try:
        return outgoing.arguments()
    except Exception:  # noqa: BLE001 - the user's own classes run while they are unpickled
        return (), {}


def prefix_in(args: Sequence[Any], kwargs: Mapping[str, Any], argument: int | str, field: str, length: int) -> str:
    """Return how an argument begins; "" where there is no such thing."""
    try:
        value = kwargs[argument] if isinstance(argument, str) else args[argument]
        for part in filter(None, field.split(".")):
            value = _inside(value, part)
    except (LookupError, TypeError, ValueError, AttributeError):
        return ""
    return _beginning(value, length)


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, HttpRequest):
        value = json.loads(value.body)
    if isinstance(value, Mapping):
        return value[part]
    return value[int(part)] if isinstance(value, list | tuple) else getattr(value, part)


def _beginning(value: Any, length: int) -> str:
    if isinstance(value, HttpRequest):
        value = value.body or value.path
    if isinstance(value, bytes | bytearray | memoryview):
        # A character has at most four bytes.
        return bytes(value[: 4 * length]).decode(errors="replace")[:length]
    return (value if isinstance(value, str) else str(value))[:length]
