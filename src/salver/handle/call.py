"""One handle call: from arguments to a settled future."""

import asyncio
import concurrent.futures
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import msgspec

from salver.handle.channel import Channel
from salver.handle.outgoing import Outgoing
from salver.handle.response import DeploymentResponse
from salver.handle.session import Session
from salver.lib.exceptions import PackedException, unpacked
from salver.schema.errors import ReplicaDiedError, SalverError, as_remote_error
from salver.schema.ids import DeploymentID
from salver.transport.codec import dumps, loads
from salver.transport.wire import CALL, ERROR, RESULT, CallHead, ErrorBody

_encode_head = msgspec.msgpack.Encoder().encode
_decode_error = msgspec.msgpack.Decoder(ErrorBody).decode

Future = asyncio.Future[Any] | concurrent.futures.Future[Any]


class Call(Outgoing):
    """A call of a deployment's method.

    Args:
        future: Settled with the result; an asyncio future of the session's loop, or a thread's.
    """

    __slots__ = ("_args", "_body", "_future", "_head", "_resolving", "_session", "deployment", "request_id")

    def __init__(
        self,
        session: Session,
        deployment: DeploymentID,
        head: CallHead,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        self.deployment = deployment
        self.request_id = head.request_id
        self._session = session
        self._head = head
        self._body = b""
        self._args: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        if any(isinstance(each, DeploymentResponse) for each in (*args, *kwargs.values())):
            self._args = (args, kwargs)
        else:
            self._body = dumps((args, kwargs))
        self._future: Future
        self._resolving: asyncio.Task[None] | None = None

    def start(self, *, in_loop: bool) -> None:
        """Send the call; from the session's loop, or from any thread."""
        loop = self._session.loop
        if in_loop:
            self._future = loop.create_future()
            self._future.add_done_callback(self._settled)
            self._begin()
        else:
            self._future = concurrent.futures.Future()
            self._future.add_done_callback(self._settled_anywhere)
            loop.call_soon_threadsafe(self._begin)

    def awaitable(self) -> Awaitable[Any]:
        """Return what a task of the running loop may await."""
        future = self._future
        loop = asyncio.get_running_loop()
        if isinstance(future, concurrent.futures.Future):
            return asyncio.wrap_future(future)
        return future if loop is self._session.loop else asyncio.wrap_future(self.thread_future())

    def thread_future(self) -> concurrent.futures.Future[Any]:
        """Return what a thread may block on."""
        if isinstance(self._future, concurrent.futures.Future):
            return self._future
        return asyncio.run_coroutine_threadsafe(_wait_for(self._future), self._session.loop)

    def cancel(self) -> None:
        """Cancel the future, which stops the call."""
        if isinstance(self._future, concurrent.futures.Future):
            self._future.cancel()
        else:
            self._session.loop.call_soon_threadsafe(self._future.cancel)

    def _begin(self) -> None:
        if self._future.done():
            return
        if self._args is None:
            self._session.routers.get(self.deployment).route(self)
        else:
            work = self._resolve(*self._args)
            self._resolving = self._session.routers.tasks.start(work, name=f"arguments of {self.request_id}")

    async def _resolve(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Wait for responses among the arguments, then send the call with their values."""
        try:
            values = tuple([await _value_of(each) for each in args])
            named = {key: await _value_of(each) for key, each in kwargs.items()}
            self._body = dumps((values, named))
        except asyncio.CancelledError:
            self._future.cancel()
        except Exception as error:  # noqa: BLE001 - what an earlier call raised belongs to whoever waits for this one
            self._fail(error)
        else:
            if not self._future.done():
                self._session.routers.get(self.deployment).route(self)

    def _settled_anywhere(self, future: Future) -> None:
        if future.cancelled():
            self._session.loop.call_soon_threadsafe(self._stop)

    def _settled(self, future: Future) -> None:
        if future.cancelled():
            self._stop()
        else:
            # Mark the exception as seen: a response that nobody awaits is no error.
            future.exception()

    def _stop(self) -> None:
        if self._resolving is not None:
            self._resolving.cancel()
        if self.order:
            self._session.routers.get(self.deployment).cancel(self)

    def _succeed(self, value: Any) -> None:
        # A thread may cancel its future at any moment, so a look at its state before tells nothing.
        with suppress(concurrent.futures.InvalidStateError):
            if not self._future.done():
                self._future.set_result(value)

    def _fail(self, error: BaseException) -> None:
        with suppress(concurrent.futures.InvalidStateError):
            if not self._future.done():
                self._future.set_exception(error)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Send the call; part of Outgoing."""
        channel.connection.send(CALL, stream, _encode_head(self._head), self._body, flags)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Settle with what the replica answered; part of Outgoing."""
        if self._future.done():
            return
        if kind == RESULT:
            try:
                value = loads(body)
            except Exception as error:  # noqa: BLE001 - the user's own classes run while they are unpickled
                self._fail(error)
            else:
                self._succeed(value)
        elif kind == ERROR:
            self._fail(_error_of(_decode_error(body)))

    def may_repeat(self) -> bool:
        """A call may have had effects; part of Outgoing."""
        return False

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._fail(ReplicaDiedError(replica, self.request_id))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._fail(error)


def _error_of(error: ErrorBody) -> BaseException:
    try:
        cause = loads(error.pickled) if error.pickled else None
        if isinstance(cause, PackedException):
            cause = unpacked(cause)
    except Exception:  # noqa: BLE001 - a class that cannot be rebuilt here still has its traceback as text
        cause = None
    if isinstance(cause, SalverError) and error.kind == "salver":
        return cause
    return as_remote_error(cause, error.traceback or error.message)


async def _value_of(argument: Any) -> Any:
    # Shielded: others may wait for the same response, whatever becomes of this call.
    return await asyncio.shield(argument) if isinstance(argument, DeploymentResponse) else argument


async def _wait_for(future: "asyncio.Future[Any]") -> Any:
    return await asyncio.shield(future)
