"""What is known about the request that the current task or thread works on."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from os import urandom
from typing import Any, Protocol

from salver.schema.urgency import DEFAULT_URGENCY


class Answering(Protocol):
    """The answer to a request.

    Attributes:
        ended: All of it is on its way.
    """

    ended: bool


class Child(Protocol):
    """A call that a request has made."""

    def stop(self) -> None:
        """Cancel it; called on the loop that user code runs on."""


@dataclass(slots=True, eq=False)
class RequestContext:
    """The request being worked on; all fields are empty outside of one.

    It outlives its request in tasks and threads that the handler left behind: what these call is theirs alone.

    Attributes:
        route: Route prefix (HTTP) that the outermost request came in by.
        request_id: The outermost request's id, the same in all calls it leads to.
        multiplexed_model_id: The model that this request is for; calls that it leads to say their own.
        session_id: Its session, likewise.
        urgency: From 0 (most urgent) to 7; calls that it leads to have the same unless they say their own.
        deadline: Monotonic time until which its client waits, or None.
        is_over: Its handler has ended, or there is no request.
        is_cancelled: Nobody waits for its answer.
        answer: What user code may go on after; None where it may not.
        children: The calls that were made for it and are not settled.
        batch_request_ids: In a batch handler, which works on several requests, their ids; `request_id` is empty there.
        grpc_context: What a gRPC request says of itself, where there is one.
    """

    route: str = ""
    request_id: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    session_id: str = ""
    is_http_request: bool = False
    urgency: int = DEFAULT_URGENCY
    deadline: float | None = None
    is_over: bool = False
    is_cancelled: bool = False
    answer: Answering | None = None
    children: set[Child] = field(default_factory=set, repr=False)
    batch_request_ids: tuple[str, ...] = ()
    grpc_context: Any = None
    _own_id: str = field(default="", repr=False)

    @property
    def _internal_request_id(self) -> str:
        """Return an id of this call alone; `request_id` is the same in all calls that a request leads to."""
        if not self._own_id:
            self._own_id = request_ids.new()
        return self._own_id

    @property
    def cancel_on_parent_request_cancel(self) -> bool:
        """Say that a call ends when the request that made it is cancelled."""
        return True

    @property
    def is_open(self) -> bool:
        """Say whether what is called now is called for the request, and not in the background after it."""
        return not self.is_over and (self.answer is None or not self.answer.ended)

    def adopt(self, child: Child) -> bool:
        """Take a call as the request's own; say whether it may be made. May be called in any thread."""
        # In this order: whoever cancels at the same moment sees the child, or is seen here.
        self.children.add(child)
        return not self.is_cancelled

    def cancel(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Cancel the calls that were made for the request; it makes no more."""
        self.is_cancelled = True
        if self.children:
            # A step later: the request's own tasks should learn that they are cancelled, not that a call was.
            call_soon(self._stop_children)

    def _stop_children(self) -> None:
        for child in list(self.children):
            child.stop()


_NO_REQUEST = RequestContext(is_over=True)
request_variable: ContextVar[RequestContext] = ContextVar("salver_request", default=_NO_REQUEST)

current_request = request_variable.get
enter_request = request_variable.set
leave_request = request_variable.reset


class RequestIds:
    """Ids that are unique without a system call each: a random prefix per process and a counter."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take a new prefix; called in every forked process."""
        # Together: a thread that asks just now must not get a number of one prefix with another.
        self._prefix_and_numbers = urandom(8).hex(), count(1)

    def new(self) -> str:
        """Return an id nobody else has."""
        prefix, numbers = self._prefix_and_numbers
        return f"{prefix}{next(numbers):08x}"


request_ids = RequestIds()
