"""What whoever routes by it may know of a request over HTTP."""

from typing import Any

from salver.handle.outgoing import Description, HttpRequest
from salver.transport.wire import HttpHead


def description_of(head: HttpHead) -> Description:
    """Return what a request is."""
    return Description(head.request_id, "", head.route, is_http_request=True)


def arguments_of(head: HttpHead, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the request as the only argument of a call."""
    return (HttpRequest(head.method, head.path, head.query, tuple(head.headers), body),), {}
