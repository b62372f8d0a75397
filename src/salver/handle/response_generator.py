"""What a handle call with `stream=True` returns: the items of a generator on a replica, as they come."""

from collections.abc import Generator
from typing import Any, Generic, NoReturn, Self, SupportsIndex, TypeVar

from salver.handle.response import running_loop
from salver.handle.streaming_call import NOTHING, OVER, StreamingCall

T = TypeVar("T")


class DeploymentResponseGenerator(Generic[T]):
    """The items of a call: `async for item in response`, or, outside of event loops, `for item in response`.

    The call runs from the beginning, and as far ahead of its reader as its window reaches. It is cancelled when the
    generator is closed, when nobody refers to it any more, and when a task that waits for an item is cancelled.
    """

    def __init__(self, call: StreamingCall) -> None:
        self._call = call
        self._cancelled = False
        self._closed = False

    @property
    def request_id(self) -> str:
        """Return the id of the request that this call is part of."""
        return self._call.request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        while (item := self._call.poll()) is NOTHING:
            await self._call.more()
        if item is OVER:
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if running_loop() is not None:
            raise RuntimeError(
                "Sync methods should not be called from within an `asyncio` event loop. "
                "Use `async for` or `await response.__anext__()` instead."
            )
        if self._closed:
            raise StopIteration
        while (item := self._call.poll()) is NOTHING:
            self._call.wait()
        if item is OVER:
            raise StopIteration
        return item  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """Stop the call: a waiting one is dropped, a running generator is closed; items not taken yet are lost."""
        self._cancelled = True
        self._call.cancel()

    def cancelled(self) -> bool:
        """Say whether `cancel()` was called."""
        return self._cancelled

    def close(self) -> None:
        """Stop the call if it still runs; there are no more items. Does not wait for the replica."""
        self._closed = True
        self._call.cancel()

    async def aclose(self) -> None:
        """Stop the call as `close()` does, for `contextlib.aclosing`."""
        self.close()

    def result(self, *, timeout_s: float | None = None) -> NoReturn:
        """Refuse: there is no single result.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "`DeploymentResponseGenerator` has no single result. Use `for item in response` instead, or call without "
            "`handle.options(stream=True)` a method that is no generator."
        )

    def __await__(self) -> Generator[Any, None, T]:
        raise TypeError(
            "`DeploymentResponseGenerator` cannot be awaited. Use `async for item in response` or "
            "`await response.__anext__()` instead."
        )

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise RuntimeError(
            "Streaming deployment handle results cannot be passed to downstream handle calls, nor returned or pickled. "
            "Iterate over them where the call was made, and pass the items on."
        )

    def __del__(self) -> None:
        # A constructor that was given nonsense leaves no call.
        call = self.__dict__.get("_call")
        if call is not None and not call.is_over:
            call.cancel()
