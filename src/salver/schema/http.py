"""Where and how the HTTP proxy listens: the options of `serve.start(http_options=…)`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from salver.schema.conversion import struct_from
from salver.schema.errors import InvalidOption

DEFAULT_HTTP_HOST = "127.0.0.1"
DEFAULT_HTTP_PORT = 8000


class ProxyLocation(StrEnum):
    """On which nodes proxies run."""

    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"
    NoServer = "Disabled"


class HTTPOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of the HTTP proxies; fixed for the life of an instance.

    Attributes:
        host: Address to listen on; None starts no proxy.
        port: TCP port; 0 lets the system choose one.
        root_path: Prefix that a proxy in front of this one keeps on paths.
        request_timeout_s: End-to-end seconds a request may take; None for no limit.
        keep_alive_timeout_s: Seconds an idle connection is kept.
    """

    host: str | None = DEFAULT_HTTP_HOST
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_HTTP_PORT
    root_path: str = ""
    request_timeout_s: float | None = None
    keep_alive_timeout_s: Annotated[float, Meta(gt=0)] = 90.0


def http_options(given: HTTPOptions | Mapping[str, Any] | None) -> HTTPOptions:
    """Return validated HTTP options.

    Raises:
        InvalidOption: An unknown key or a value that is not allowed.
    """
    return HTTPOptions() if given is None else struct_from("http_options", given, HTTPOptions)


def proxy_location(given: ProxyLocation | str | None) -> ProxyLocation:
    """Return the proxy location named by a user; None means every node.

    Raises:
        InvalidOption: The name is not known.
    """
    if given is None:
        return ProxyLocation.EveryNode
    try:
        return ProxyLocation[given] if given in ProxyLocation.__members__ else ProxyLocation(given)
    except ValueError:
        allowed = ", ".join(repr(each.value) for each in ProxyLocation)
        raise InvalidOption(f"proxy_location got {given!r}: expected one of {allowed}.") from None
