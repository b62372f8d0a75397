"""Asking and telling: messages of `schema/messages.py` over a framed connection."""

import asyncio
from itertools import count
from typing import Protocol, TypeVar

import msgspec

from salver.lib.tasks import Tasks
from salver.lib.tracebacks import encodable
from salver.schema.errors import Disconnected, ProtocolError, SalverError
from salver.schema.messages import AnyMessage, Message
from salver.transport.framing import FrameConnection
from salver.transport.wire import ANSWER, ASK, FAILED, HELLO, TELL, VERSION, Hello

Answer = TypeVar("Answer", bound=Message)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_text = msgspec.msgpack.Decoder(tuple[str, str]).decode

OLDEST_SPOKEN_VERSION = 1


class Refused(SalverError):
    """The other side answered a question with an error; the message is theirs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


class Office(Protocol):
    """Who answers a peer's questions and hears what it tells."""

    async def on_ask(self, peer: "Peer", message: Message) -> Message:
        """Answer; a SalverError becomes `Refused` at the other side."""

    def on_tell(self, peer: "Peer", message: Message) -> None:
        """Take note."""

    def on_gone(self, peer: "Peer") -> None:
        """The peer's connection is closed."""


class Peer:
    """One side of a connection that carries messages.

    Args:
        office: Handles what the other side asks and tells.
        role: What this process is; sent in the greeting.
        name: This process's name; sent in the greeting.
        tasks: Owns the answering tasks.
    """

    def __init__(self, office: Office, *, role: str, name: str, tasks: Tasks) -> None:
        self._office = office
        self._tasks = tasks
        self._greeting = Hello(VERSION, role, name)
        self._streams = count(1)
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._connection: FrameConnection | None = None
        self.other: Hello | None = None

    async def ask(self, message: Message, answer: type[Answer]) -> Answer:
        """Send a question and return its answer.

        Raises:
            Refused: The other side answered with an error.
            Disconnected: The connection closed before the answer.
        """
        connection = self._open_connection()
        stream = next(self._streams)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[stream] = future
        try:
            connection.send(ASK, stream, body=_encode(message))
            result = await future
        finally:
            self._asked.pop(stream, None)
        if not isinstance(result, answer):
            raise ProtocolError(f"asked {type(message).__name__}, answered {type(result).__name__}")
        return result

    def tell(self, message: Message) -> None:
        """Send a message that needs no answer; a closed connection drops it."""
        if self._connection is not None:
            self._connection.send(TELL, 0, body=_encode(message))

    def tell_encoded(self, body: bytes) -> None:
        """Send a message that was encoded once for many peers."""
        if self._connection is not None:
            self._connection.send(TELL, 0, body=body)

    def close(self) -> None:
        """Close the connection after what is queued has left."""
        if self._connection is not None:
            self._connection.close()

    @property
    def connected(self) -> bool:
        """Say whether the connection is open."""
        return self._connection is not None and not self._connection.closed

    @property
    def has_room(self) -> bool:
        """Say whether the other side reads fast enough for messages that may be left out."""
        return self._connection is not None and not self._connection.congested

    @property
    def other_name(self) -> str:
        """Return what the other side calls itself."""
        return self.other.name if self.other is not None else "?"

    def _open_connection(self) -> FrameConnection:
        if self._connection is None or self._connection.closed:
            raise Disconnected(f"the connection to {self.other_name} is closed")
        return self._connection

    # FrameSink

    def on_opened(self, connection: FrameConnection) -> None:
        """Greet; part of FrameSink."""
        self._connection = connection
        connection.send(HELLO, 0, body=_encode(self._greeting))

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Dispatch a frame; part of FrameSink."""
        try:
            if kind == TELL:
                self._office.on_tell(self, _decode(body))
            elif kind == ASK:
                self._tasks.start(self._answer(stream, _decode(body)), name=f"answer {self.other_name}")
            elif kind == ANSWER:
                self._settle(stream, _decode(body))
            elif kind == FAILED:
                self._settle(stream, Refused(*_decode_text(body)))
            elif kind == HELLO:
                self._greeted(_decode_hello(body))
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{self.other_name} sent a malformed message: {error}") from error

    def on_closed(self, error: Exception | None) -> None:
        """Fail what is still asked; part of FrameSink."""
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Disconnected(f"{self.other_name} closed the connection"))
        self._office.on_gone(self)

    def _greeted(self, hello: Hello) -> None:
        if hello.version < OLDEST_SPOKEN_VERSION:
            raise ProtocolError(f"{hello.name} speaks version {hello.version}, too old for {VERSION}")
        self.other = hello

    def _settle(self, stream: int, outcome: Message | Refused) -> None:
        future = self._asked.get(stream)
        if future is None or future.done():
            return
        if isinstance(outcome, Refused):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _answer(self, stream: int, message: Message) -> None:
        try:
            reply = await self._office.on_ask(self, message)
            self._send(ANSWER, stream, _encode(reply))
        except SalverError as error:
            self._send(FAILED, stream, _encode((type(error).__name__, encodable(str(error)))))
        except Exception:
            # Our own bug: the one who asked must not wait for ever, and the owner must hear of it.
            self._send(FAILED, stream, _encode(("InternalError", f"internal error answering {type(message).__name__}")))
            raise

    def _send(self, kind: int, stream: int, body: bytes) -> None:
        if self._connection is not None:
            self._connection.send(kind, stream, body=body)


def encode_message(message: Message) -> bytes:
    """Encode a message once, for `Peer.tell_encoded` to many."""
    return _encode(message)
