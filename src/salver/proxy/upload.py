"""A request body that is sent on while it arrives."""

from typing import TYPE_CHECKING

import msgspec

from salver.proxy.limits import UPLOAD_WINDOW_SIZE_BYTES
from salver.schema.errors import ProtocolError
from salver.transport.wire import CHUNK, END, CreditHead

if TYPE_CHECKING:
    from salver.handle.channel import Channel

_decode_credit = msgspec.msgpack.Decoder(CreditHead).decode


class Upload:
    """What is known of a body between its client and a replica.

    Until a replica has shown that it took the request, all of the body so far is kept, so that the request can be sent
    to another one; that is never much more than a window, because nobody reads more before a replica has granted it.

    Args:
        first: What arrived together with the headers.

    Attributes:
        complete: All of the body has arrived.
    """

    __slots__ = ("_kept", "_sent_to", "_unread", "complete")

    def __init__(self, first: bytes) -> None:
        self.complete = False
        self._kept: list[bytes] | None = [first]
        self._unread = len(first)
        self._sent_to: tuple[Channel, int] | None = None

    @property
    def is_full(self) -> bool:
        """Say whether the client should wait until the replica has taken more."""
        return self._unread >= UPLOAD_WINDOW_SIZE_BYTES

    @property
    def can_be_repeated(self) -> bool:
        """Say whether another replica could be sent all of it."""
        return self._kept is not None

    def begin(self, channel: "Channel", stream: int) -> bytes:
        """Return what goes with the request's head; what comes later goes to the same replica."""
        self._sent_to = (channel, stream)
        return b"".join(self._kept or ())

    def add(self, data: bytes, channel: "Channel | None", stream: int) -> None:
        """Send more, if the request is with a replica, or keep it."""
        self._unread += len(data)
        if self._kept is not None:
            self._kept.append(data)
        if channel is not None and self._sent_to == (channel, stream):
            channel.connection.send(CHUNK, stream, body=data)

    def end(self, channel: "Channel | None", stream: int) -> None:
        """Tell the replica, if it has the request, that this was all."""
        self.complete = True
        if channel is not None and self._sent_to == (channel, stream):
            channel.connection.send(END, stream)

    def was_taken(self) -> None:
        """The request is with user code, which is the only one to see it from now on."""
        self._kept = None

    def grant(self, header: bytes) -> None:
        """The replica takes more; the header is a CREDIT frame's."""
        try:
            self._unread -= _decode_credit(header).size_bytes
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a CREDIT frame's head is malformed: {error}") from None
