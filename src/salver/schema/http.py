"""Where and how the HTTP proxy listens: the options of `serve.start(http_options=…)`."""

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from salver.lib.tls import BadTlsFile, TlsFiles, server_context
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
        request_arrival_timeout_s: Seconds a client may take to send a request's head, or a short body.
        ssl_certfile: PEM file with the certificate and its chain; with `ssl_keyfile` the proxies speak HTTPS.
        ssl_keyfile: PEM file with the certificate's private key.
        ssl_keyfile_password: What the private key is encrypted with.
        ssl_ca_certs: PEM file with the authorities of which every client must show a certificate.
        num_proxies: Proxy processes on each node, all on the one port.
        max_connections: Connections each proxy process keeps; None for as many as it may have files open.
        max_request_body_bytes: Longest body of a request, for deployments that do not say; None for no limit.
        location: Former name of `proxy_location`; "Disabled" starts no proxy.
        root_url: Has no effect.
        num_cpus: Was removed; 0 is allowed.
        middlewares: Was removed; an empty list is allowed.
    """

    host: str | None = DEFAULT_HTTP_HOST
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_HTTP_PORT
    root_path: str = ""
    request_timeout_s: float | None = None
    keep_alive_timeout_s: Annotated[float, Meta(gt=0)] = 90.0
    request_arrival_timeout_s: Annotated[float, Meta(gt=0)] = 60.0
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    num_proxies: Annotated[int, Meta(ge=1, le=256)] = 1
    max_connections: Annotated[int, Meta(ge=1)] | None = None
    max_request_body_bytes: Annotated[int, Meta(ge=0)] | None = None
    location: str | None = None
    root_url: str = ""
    num_cpus: float = 0
    middlewares: list[Any] = []

    def __repr__(self) -> str:
        shown = {name: value for name, value in msgspec.structs.asdict(self).items() if name not in _SECRET}
        return f"HTTPOptions({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def tls(self) -> TlsFiles | None:
        """Return what HTTPS needs, or None for plain HTTP."""
        if self.ssl_certfile is None or self.ssl_keyfile is None:
            return None
        return TlsFiles(self.ssl_certfile, self.ssl_keyfile, self.ssl_keyfile_password, self.ssl_ca_certs)

    @property
    def scheme(self) -> str:
        """Return "http" or "https"."""
        return "http" if self.tls is None else "https"

    def url_at(self, host: str, port: int) -> str:
        """Return the URL of a proxy that listens there."""
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


_SECRET = ("ssl_keyfile_password",)
_FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")


def http_options(given: HTTPOptions | Mapping[str, Any] | None) -> HTTPOptions:
    """Return validated HTTP options; the files of TLS are looked at, and their paths made absolute.

    Raises:
        InvalidOption: An unknown key or a value that is not allowed.
    """
    options = HTTPOptions() if given is None else _converted(given)
    _take_former(options)
    _check_tls(options)
    return options


def _converted(given: HTTPOptions | Mapping[str, Any]) -> HTTPOptions:
    password = given.ssl_keyfile_password if isinstance(given, HTTPOptions) else _password_in(given)
    if password is not None and not isinstance(password, str):
        raise InvalidOption("Option 'http_options.ssl_keyfile_password' is no text.")
    return struct_from("http_options", given, HTTPOptions)


def _password_in(given: Any) -> Any:
    return given.get("ssl_keyfile_password") if isinstance(given, Mapping) else None


def _take_former(options: HTTPOptions) -> None:
    """Heed options that were removed, so that nobody believes that they do something."""
    if options.middlewares:
        raise InvalidOption(
            "Option 'http_options.middlewares' was removed: proxies run no code of users. Add the middleware to your "
            "application (with FastAPI: app.add_middleware), or put a reverse proxy in front."
        )
    if options.num_cpus:
        raise InvalidOption("Option 'http_options.num_cpus' was removed: proxies take no CPUs from replicas.")
    if options.location is not None and proxy_location(options.location) is ProxyLocation.Disabled:
        options.host = None
    options.location, options.root_url, options.middlewares = None, "", []


def _check_tls(options: HTTPOptions) -> None:
    for name in _FILES:
        if (path := getattr(options, name)) is not None:
            setattr(options, name, os.path.abspath(os.path.expanduser(path)))
    if (options.ssl_certfile is None) != (options.ssl_keyfile is None):
        given, missing = ("ssl_certfile", "ssl_keyfile")[:: 1 if options.ssl_certfile is not None else -1]
        raise InvalidOption(f"HTTPS needs a certificate and its key: http_options has '{given}' but no '{missing}'.")
    if options.tls is None:
        if options.ssl_ca_certs is not None:
            raise InvalidOption(
                "Clients can be asked for certificates over HTTPS only: http_options has 'ssl_ca_certs' but no "
                "'ssl_certfile' and 'ssl_keyfile'."
            )
        return
    try:
        server_context(options.tls)
    except BadTlsFile as error:
        raise InvalidOption(str(error)) from None


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
