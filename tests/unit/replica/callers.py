"""A replica's callers over the in-process transport: they send frames, and remember what comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from salver.lib.exceptions import PackedException, unpacked
from salver.replica.server import ReplicaServer
from salver.transport.codec import dumps, loads
from salver.transport.framing import FrameConnection
from salver.transport.memory import MemoryNetwork
from salver.transport.wire import CALL, ERROR, HTTP, RESULT, CallHead, ErrorBody, HttpHead, ResponseHead

encode = msgspec.msgpack.encode


class Frame(NamedTuple):
    """A frame that the replica sent."""

    kind: int
    stream: int
    flags: int
    load: int
    header: bytes
    body: bytes

    @property
    def head(self) -> ResponseHead:
        """Return the head of a RESPONSE."""
        return msgspec.msgpack.decode(self.header, type=ResponseHead)

    @property
    def error(self) -> ErrorBody:
        """Return the body of an ERROR."""
        return msgspec.msgpack.decode(self.body, type=ErrorBody)


class Client:
    """A caller: sends requests, remembers what comes back."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.connection: FrameConnection

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.connection = connection

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        self.frames.put_nowait(Frame(kind, stream, flags, load, header, body))

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""

    def call(self, stream: int, method: str = "__call__", *args: Any, flags: int = 0) -> None:
        """Call a method."""
        head = CallHead(method, f"request-{stream}", "/shop", "shop", "")
        self.connection.send(CALL, stream, encode(head), dumps((args, {})), flags)

    def send(self, kind: int, stream: int, head: bytes = b"", body: bytes = b"") -> None:
        """Send any frame."""
        self.connection.send(kind, stream, head, body)

    def http(self, stream: int, body: bytes = b"", path: str = "/", flags: int = 0) -> None:
        """Send an HTTP request."""
        head = HttpHead(
            "POST", path, b"a=1", "1.1", [(b"x-y", b"z")], ("::1", 9), f"request-{stream}", "/shop", "/shop", "/raw"
        )
        self.connection.send(HTTP, stream, encode(head), body, flags)

    async def next(self) -> Frame:
        """Return the next frame of the replica."""
        return await asyncio.wait_for(self.frames.get(), timeout=5)

    def received(self) -> list[Frame]:
        """Return all frames that have arrived."""
        return [self.frames.get_nowait() for _ in range(self.frames.qsize())]

    async def result(self) -> Any:
        """Return the next frame's result."""
        frame = await self.next()
        assert frame.kind == RESULT
        return loads(frame.body)

    async def error(self) -> BaseException:
        """Return the next frame's error."""
        frame = await self.next()
        assert frame.kind == ERROR
        cause = loads(frame.error.pickled)
        error = unpacked(cause) if isinstance(cause, PackedException) else cause
        assert isinstance(error, BaseException)
        return error


class Rig:
    """A replica and what its callers connect through."""

    def __init__(self, server: ReplicaServer, network: MemoryNetwork) -> None:
        self.server = server
        self._network = network

    async def caller(self) -> Client:
        """Return a connected caller."""
        caller = Client()
        await self._network.dial("replica", caller)
        return caller


Start = Callable[..., Awaitable[Rig]]


async def settle() -> None:
    """Let everything happen that can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


class Gate:
    """A handler that waits until it is told to go on."""

    def __init__(self) -> None:
        self.entered = 0
        self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self, *_: Any) -> str:
        """Wait."""
        self.entered += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


class Mute(Exception):
    """Cannot be pickled at all, nor turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class Abort(BaseException):
    """Not an Exception."""


def chained(length: int) -> Exception:
    """Return an error after many others."""
    error = ValueError("the last of many")
    earlier: Exception = error
    for _ in range(length):
        earlier.__context__ = earlier = ValueError("one of many")
    return error


ERRORS = [
    pytest.param(Mute(), id="no text"),
    pytest.param(ValueError("\ud800"), id="no bytes"),
    pytest.param(chained(1100), id="after many others"),
    pytest.param(SystemExit(3), id="SystemExit"),
    pytest.param(KeyboardInterrupt(), id="KeyboardInterrupt"),
    pytest.param(GeneratorExit(), id="GeneratorExit"),
    pytest.param(Abort(), id="BaseException"),
    pytest.param(BaseExceptionGroup("both", [Abort(), ValueError()]), id="group"),
    pytest.param(StopAsyncIteration(), id="StopAsyncIteration"),
]
