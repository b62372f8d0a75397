"""The certificate that a proxy shows, and its renewal."""

import asyncio
import logging
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from salver.lib.tls import BadTlsFile, TlsFiles
from salver.proxy.tls import Certificate
from tests.certificates import Authority, Pair


class Greeter(asyncio.Protocol):
    """Says which protocol was agreed on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(str(transport.get_extra_info("ssl_object").selected_alpn_protocol()).encode())
        transport.close()


class Shop:
    """A server whose certificate's files can be exchanged."""

    def __init__(self, path: Path) -> None:
        self.authority = Authority(path)
        self.files = TlsFiles(str(path / "current.pem"), str(path / "current.key"), None, str(path / "clients.pem"))
        self.client_pair = self.authority.sign("client")
        self.show(self.authority.sign("first"))
        shutil.copy(self.authority.cert, str(self.files.ca_certs))
        self.certificate = Certificate(self.files)
        self.port = 0

    def show(self, pair: Pair) -> None:
        shutil.copy(pair.cert, self.files.certfile)
        shutil.copy(pair.key, self.files.keyfile)

    def look_twice(self) -> None:
        self.certificate.look()
        self.certificate.look()

    async def ask(self, client: ssl.SSLContext | None = None) -> tuple[str, bytes]:
        """Return whose certificate was shown, and what was said."""
        context = client or self.authority.client(self.client_pair)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            [[[_, name]]] = writer.get_extra_info("peercert")["subject"]
            return name, await reader.read()
        finally:
            writer.close()

    async def refuses(self, client: ssl.SSLContext) -> bool:
        """Say whether a client is refused; with TLS 1.3 it learns that when it reads."""
        try:
            return (await self.ask(client))[1] == b""
        except (ssl.SSLError, ConnectionError):
            return True


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    each = Shop(tmp_path)
    server = await asyncio.get_running_loop().create_server(Greeter, "127.0.0.1", 0, ssl=each.certificate.context)
    async with server:
        each.port = server.sockets[0].getsockname()[1]
        yield each


async def test_http_1_1_is_agreed_on(shop: Shop) -> None:
    client = shop.authority.client(shop.client_pair)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert await shop.ask(client) == ("first", b"http/1.1")


async def test_clients_must_show_a_certificate(shop: Shop) -> None:
    stranger = Authority(Path(shop.files.certfile).parent, "elsewhere").sign("stranger")
    for client in (shop.authority.client(), shop.authority.client(stranger)):
        assert await shop.refuses(client)


def test_old_versions_of_tls_are_refused(shop: Shop) -> None:
    assert shop.certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_shown_to_those_who_come_later(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "salver")
    shop.show(shop.authority.sign("second"))
    assert (await shop.ask())[0] == "first"
    shop.look_twice()
    assert (await shop.ask())[0] == "second"
    shop.look_twice()
    assert [each.message for each in caplog.records] == [f"The certificate in {shop.files.certfile} was renewed."]


async def test_files_that_do_not_fit_leave_the_old_certificate_until_they_do(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    second = shop.authority.sign("second")
    shutil.copy(second.cert, shop.files.certfile)
    for _ in range(3):
        shop.look_twice()
        assert await shop.ask() == ("first", b"None")
    [line] = [each.message for each in caplog.records]
    assert line.startswith("The renewed certificate is not used, the old one serves on: The private key in ")
    shutil.copy(second.key, shop.files.keyfile)
    shop.look_twice()
    assert (await shop.ask())[0] == "second"


async def test_a_file_that_is_missing_for_a_moment_is_no_news(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    key = Path(shop.files.keyfile)
    key.rename(key.with_suffix(".away"))
    shop.certificate.look()
    key.with_suffix(".away").rename(key)
    shop.look_twice()
    assert ((await shop.ask())[0], caplog.records) == ("first", [])


async def test_another_authority_of_clients_is_heeded(shop: Shop) -> None:
    other = Authority(Path(shop.files.certfile).parent, "other")
    shutil.copy(other.cert, str(shop.files.ca_certs))
    shop.look_twice()
    assert (await shop.ask(shop.authority.client(other.sign("newcomer")))) == ("first", b"None")
    assert await shop.refuses(shop.authority.client(shop.client_pair))


async def test_plain_http_is_ended(shop: Shop) -> None:
    with socket.create_connection(("127.0.0.1", shop.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        answer = await asyncio.to_thread(sock.recv, 1000)
    assert not answer.startswith(b"HTTP/1.1")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTlsFile, match="cannot be read: No such file or directory"):
        Certificate(TlsFiles(str(tmp_path / "no.pem"), str(tmp_path / "no.key")))
