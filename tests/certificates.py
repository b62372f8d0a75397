"""Certificates for tests, made by the openssl command: an authority, a server's and a client's."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

PASSWORD = "open sesame"


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: str
    key: str


class Authority:
    """Signs certificates.

    Args:
        path: Directory for all files.
    """

    def __init__(self, path: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command makes the certificates")
        self._path = path
        self._name = name
        key, self.cert = path / f"{name}.key", str(path / f"{name}.pem")
        _openssl("req", "-x509", *_new_key(key), "-subj", f"/CN={name}", "-days", "2", "-out", self.cert)

    def sign(self, name: str, *, password: str | None = None) -> Pair:
        """Return a new certificate for 127.0.0.1 and localhost."""
        key, request, cert = (self._path / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self._path / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl("req", *_new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        issuer = ["-CA", self.cert, "-CAkey", str(self._path / f"{self._name}.key"), "-CAcreateserial"]
        extension = ["-extfile", str(extensions)]
        _openssl("x509", "-req", "-in", str(request), *issuer, "-days", "2", *extension, "-out", str(cert))
        if password is not None:
            encrypted = self._path / f"{name}.encrypted.key"
            _openssl("pkey", "-in", str(key), "-aes256", "-passout", f"pass:{password}", "-out", str(encrypted))
            key = encrypted
        return Pair(str(cert), str(key))

    def client(self, own: Pair | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority."""
        context = ssl.create_default_context(cafile=self.cert)
        if own is not None:
            context.load_cert_chain(*own)
        return context


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
