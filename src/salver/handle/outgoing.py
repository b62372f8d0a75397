"""A request on its way to a replica: what the router needs to know of it."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from salver.schema.errors import SalverError
from salver.schema.urgency import DEFAULT_URGENCY

if TYPE_CHECKING:
    from salver.handle.channel import Channel

MAX_ATTEMPTS = 3
"""How often a request that may be repeated is sent before its caller hears of the failures."""


class Hints(NamedTuple):
    """What a request's caller says about where it should be served.

    Attributes:
        multiplexed_model_id: The model that it is for; "" for none.
        session_id: Requests of a session are served by the same replica, where the router knows how; "" for none.
        urgency: From 0 (most urgent) to 7, where the deployment's requests wait by priority.
        prefer_local: By a replica that is near, rather.
    """

    multiplexed_model_id: str = ""
    session_id: str = ""
    urgency: int = DEFAULT_URGENCY
    prefer_local: bool = False


NO_HINTS = Hints()


class Description(NamedTuple):
    """What whoever routes by it may know of a request.

    Attributes:
        request_id: The outermost request's id.
        call_method: The method that is called; "" over HTTP.
        route: Route prefix that the outermost request came in by.
    """

    request_id: str = ""
    call_method: str = ""
    route: str = ""
    is_http_request: bool = False


class HttpRequest(NamedTuple):
    """The only argument of a request over HTTP, as routers see it.

    Attributes:
        headers: Names in lower case.
        body: What has arrived of it: all of a short one.
    """

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Outgoing(ABC):
    """One request; the proxy and the handle each have their own kind.

    Attributes:
        channel: The replica's channel it was given to; None while it waits.
        stream: Its number on that channel's connection.
        attempts: How many replicas it was sent to.
        order: Its place among all requests of its router; set when it is routed.
        abandoned: Its caller no longer wants an answer, or knows that there will be none.
        hints: Where it should be served.
        arrived_at: When it began to wait, in a queue that needs to know; not set before.
    """

    __slots__ = ("abandoned", "arrived_at", "attempts", "channel", "hints", "order", "stream")

    arrived_at: float

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.stream = 0
        self.attempts = 0
        self.order = 0
        self.abandoned = False
        self.hints = NO_HINTS

    @abstractmethod
    def write(self, channel: "Channel", stream: int, flags: int) -> None:
        """Put the request's frames on the channel.

        Raises:
            ProtocolError: It is too large for a frame.
        """

    @abstractmethod
    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Take a frame of the answer."""

    @abstractmethod
    def may_repeat(self) -> bool:
        """Say whether it may be sent again although a replica had it: idempotent, and nothing was answered yet."""

    @abstractmethod
    def on_lost(self, replica: str) -> None:
        """The replica died and the request may not be repeated."""

    @abstractmethod
    def on_refused(self, error: SalverError) -> None:
        """No replica was given the request and none will be."""

    def describe(self) -> Description:
        """Return what it is, for whoever routes by it."""
        return Description()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a copy of its arguments, for whoever routes by them.

        Raises:
            Exception: They cannot be unpickled here.
        """
        return (), {}


class Way(Protocol):
    """What sends requests to replicas: a router, or what stands for one replica."""

    def route(self, outgoing: Outgoing) -> None:
        """Give a request to a replica now or later, or refuse it."""

    def cancel(self, outgoing: Outgoing) -> None:
        """Stop a request that was routed."""
