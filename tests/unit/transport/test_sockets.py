"""Who may connect."""

import asyncio
from pathlib import Path

import pytest

from salver.transport import sockets
from salver.transport.framing import FrameConnection


class Sink:
    """Remembers its connection."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = asyncio.Event()

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.frames.append(body)

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        self.closed.set()


@pytest.mark.parametrize("stranger", [True, False])
async def test_another_users_process_is_cut_off_before_it_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: bool
) -> None:
    address = sockets.unix_address(tmp_path / "s.sock")
    near, far = Sink(), Sink()
    server = await sockets.listen(address, lambda: far)
    if stranger:
        monkeypatch.setattr(sockets, "peer_uid", lambda _transport: 1 << 30)
    connection = await sockets.dial(address, near)
    connection.send(1, 0, body=b"hello")
    if not stranger:
        connection.close()
    await asyncio.wait_for(near.closed.wait(), 5)
    await asyncio.wait_for(far.closed.wait(), 5)
    assert far.frames == ([] if stranger else [b"hello"])
    server.close()
