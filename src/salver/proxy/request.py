"""A client's request, and what its headers say to the proxy itself; the same for every version of HTTP."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from salver.handle.outgoing import NO_HINTS
from salver.proxy.limits import MAX_REQUEST_ID_SIZE_BYTES
from salver.schema.urgency import urgency_of

if TYPE_CHECKING:
    from salver.schema.outcomes import Outcome


class Request:
    """A request, as far as it has arrived.

    Attributes:
        version: "1.1" or "1.0".
        request_id: As the client gave it; empty until the proxy gives one where the client did not.
        body_size: How many bytes of the body have arrived.
        keep_alive: The connection may carry another request after this one.
        refused: The answer to a request that is refused; the connection ends with it.
        head_done: What comes now is the body.
        trailers_size: Bytes of what came after the body, and was dropped.
        has_host: It says whom it is for.
        has_body: Its headers announce a body.
        is_long: Its body may be longer than what is kept of one, so it is not waited for.
        max_body_size_bytes: A longer body is refused; None until that is known, and where there is no limit.
        begun: It was given away before it was whole; the rest of its body follows.
        expects_continue: The client waits for a word before it sends the body.
        timeout: How many seconds the client waits, in its words; empty where it says nothing.
        outlives_client: The request goes on when the client leaves.
        hints: Where it should be served.
        is_websocket: It asks for a WebSocket; what comes after it is no HTTP.
    """

    __slots__ = (
        "begun",
        "body",
        "body_size",
        "expects_continue",
        "has_body",
        "has_host",
        "head_done",
        "headers",
        "hints",
        "is_long",
        "is_websocket",
        "keep_alive",
        "max_body_size_bytes",
        "method",
        "outlives_client",
        "refused",
        "request_id",
        "target",
        "timeout",
        "trailers_size",
        "version",
    )

    def __init__(self) -> None:
        self.method = "GET"
        self.target = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: bytes | bytearray = b""
        self.body_size = 0
        self.request_id = b""
        self.keep_alive = False
        self.refused: Outcome | None = None
        self.head_done = False
        self.trailers_size = 0
        self.has_body = False
        self.has_host = False
        self.is_long = False
        self.max_body_size_bytes: int | None = None
        self.begun = False
        self.expects_continue = False
        self.timeout = b""
        self.outlives_client = False
        self.hints = NO_HINTS
        self.is_websocket = False


Note = Callable[[Request, bytes], None]


def _note_request_id(request: Request, value: bytes) -> None:
    if not request.request_id:
        request.request_id = value.strip()[:MAX_REQUEST_ID_SIZE_BYTES]


def _note_timeout(request: Request, value: bytes) -> None:
    request.timeout = request.timeout or value.strip()


def _note_disconnect_disabled(request: Request, value: bytes) -> None:
    # A boolean as RFC 8941 writes it.
    request.outlives_client = value.strip() == b"?1"


def _note_model_id(request: Request, value: bytes) -> None:
    request.hints = request.hints._replace(multiplexed_model_id=value.strip().decode("latin-1"))


def _note_session_id(request: Request, value: bytes) -> None:
    request.hints = request.hints._replace(session_id=value.strip().decode("latin-1"))


def _note_urgency(request: Request, value: bytes) -> None:
    urgency = urgency_of(value)
    if urgency is not None:
        request.hints = request.hints._replace(urgency=urgency)


NOTES: dict[bytes, Note] = {
    b"x-request-id": _note_request_id,
    b"x-request-timeout-seconds": _note_timeout,
    b"x-request-disconnect-disabled": _note_disconnect_disabled,
    # Users write these either way.
    **dict.fromkeys((b"serve_multiplexed_model_id", b"serve-multiplexed-model-id"), _note_model_id),
    **dict.fromkeys((b"x-session-id", b"x_session_id"), _note_session_id),
    b"priority": _note_urgency,
}
"""What to do with a header, by its name in lower case."""
