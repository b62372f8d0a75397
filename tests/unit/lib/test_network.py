import asyncio
import os
import socket
import struct
from asyncio import BaseTransport
from pathlib import Path

import pytest

from salver.lib.network import peer_has_closed, peer_uid
from tests.waiting import wait_until, wait_until_sync


def over(sock: socket.socket) -> BaseTransport:
    return BaseTransport({"socket": sock})


pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_the_end_is_seen_behind_unread_data(reset: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"unread")
            assert not peer_has_closed(over(accepted))
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            wait_until_sync(lambda: peer_has_closed(over(accepted)), within_s=5, what="the end")


def test_a_socket_of_another_kind_is_not_known_to_be_closed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not peer_has_closed(over(ours))


async def test_the_user_at_the_other_end_of_a_unix_socket_is_known(tmp_path: Path) -> None:
    seen: list[int | None] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(peer_uid(transport))

    loop = asyncio.get_running_loop()
    path = str(tmp_path / "s.sock")
    server = await loop.create_unix_server(Server, path)
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
    await wait_until(lambda: seen, within_s=5, what="the connection")
    expected = os.geteuid() if hasattr(socket, "SO_PEERCRED") else None
    assert (seen, peer_uid(transport)) == ([expected], expected)
    transport.close()
    server.close()


async def test_the_user_at_the_other_end_of_tcp_is_not_known() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname()[:2])
    assert peer_uid(transport) is None
    transport.close()
    server.close()
