"""What handles take, for type checkers."""

from typing import Protocol, TypedDict, TypeVar

M_co = TypeVar("M_co", covariant=True)


class BoundLater(Protocol[M_co]):
    """A decorated method, such as a batched one, that does not look like a function; for type checkers."""

    is_bound_later: bool

    def __get__(self, instance: object, owner: type | None = None) -> M_co:
        """Return what instances have."""


class SomeOptions(TypedDict, total=False):
    """The options of a handle that leave the types of its calls as they are; for type checkers."""

    multiplexed_model_id: str | None
    session_id: str | None
    priority: int | None
    request_serialization: str | None
    response_serialization: str | None
    _by_reference: bool | None
    _prefer_local_routing: bool | None
