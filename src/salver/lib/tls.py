"""TLS for servers: contexts out of files, and one sentence for each thing that can be wrong with them."""

import os
import ssl
from typing import NamedTuple

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only; TLS 1.3 has nothing weaker."""


class TlsFiles(NamedTuple):
    """What a server proves its name with.

    Attributes:
        certfile: The certificate and those that lead to its issuer, PEM.
        keyfile: Its private key, PEM.
        password: What the key is encrypted with, or None.
        ca_certs: Who signs clients' certificates, PEM; None asks clients for none.
    """

    certfile: str
    keyfile: str
    password: str | None = None
    ca_certs: str | None = None

    def __repr__(self) -> str:
        return f"TlsFiles({self.certfile!r}, {self.keyfile!r}, ca_certs={self.ca_certs!r})"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files."""
        return tuple(each for each in (self.certfile, self.keyfile, self.ca_certs) if each is not None)


class BadTlsFile(ValueError):
    """A file cannot be used; the message says which one and why."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context for servers of HTTP/1.1: TLS 1.2 or later; with `ca_certs`, clients must show a certificate.

    Raises:
        BadTlsFile: A file is missing, cannot be read, or does not hold what it should.
    """
    for path in files.paths:
        _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # A handshake anew in the middle of a connection is nothing but a way to keep a server busy.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # The server chooses, in this order: a request of HTTP/2 costs ten times as much (docs/design/0006-http2.md).
    context.set_alpn_protocols(["http/1.1", "h2"])
    _load_key(context, files)
    if files.ca_certs is not None:
        _load_authorities(context, files.ca_certs)
    return context


def _load_key(context: ssl.SSLContext, files: TlsFiles) -> None:
    # Without an answer OpenSSL would ask for the password at the terminal.
    password = files.password or ""
    try:
        context.load_cert_chain(files.certfile, files.keyfile, lambda: password)
    except (ssl.SSLError, ValueError) as error:
        raise BadTlsFile(_why_no_key(files, error)) from None


def _why_no_key(files: TlsFiles, error: Exception) -> str:
    cert, key = files.certfile, files.keyfile
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return f"The private key in {key} is not that of the certificate in {cert}."
    if not _holds_certificates(cert):
        return f"{cert} holds no certificate in PEM format."
    if _is_encrypted(key):
        if not files.password:
            return f"The private key in {key} is encrypted: give its password as ssl_keyfile_password."
        return f"ssl_keyfile_password is not the password of the private key in {key}."
    if reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
        return f"The certificate in {cert} is too weak to be used ({reason.lower().replace('_', ' ')})."
    return f"{key} holds no private key in PEM format that fits the certificate in {cert}."


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise BadTlsFile(f"{path} holds no certificates in PEM format.") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise BadTlsFile(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None


def _holds_certificates(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _is_encrypted(path: str) -> bool:
    with open(path, "rb") as file:
        return b"ENCRYPTED" in file.read()
