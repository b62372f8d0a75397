import socket
import struct
from asyncio import BaseTransport

import pytest

from salver.lib.network import peer_has_closed
from tests.waiting import wait_until_sync


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
