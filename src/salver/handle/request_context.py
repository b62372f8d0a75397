"""What is known about the request that the current task or thread works on."""

from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from os import urandom


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request being worked on; all fields are empty outside of one.

    Attributes:
        route: Route prefix (HTTP) that the outermost request came in by.
        request_id: The outermost request's id, the same in all calls it leads to.
    """

    route: str = ""
    request_id: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    is_http_request: bool = False


_NO_REQUEST = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("salver_request", default=_NO_REQUEST)

current_request = _current.get
enter_request = _current.set
leave_request = _current.reset


class RequestIds:
    """Ids that are unique without a system call each: a random prefix per process and a counter."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take a new prefix; called in every forked process."""
        self._prefix = urandom(8).hex()
        self._numbers = count(1)

    def new(self) -> str:
        """Return an id nobody else has."""
        return f"{self._prefix}{next(self._numbers):08x}"


request_ids = RequestIds()
