"""The answer to a handle call, before and after it has arrived."""

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from salver.schema.errors import RequestCancelledError, SalverError

if TYPE_CHECKING:
    from salver.handle.call import Call

if TYPE_CHECKING:
    import typing_extensions

    T_co = typing_extensions.TypeVar("T_co", covariant=True, default=Any)
else:
    T_co = TypeVar("T_co", covariant=True)

NOT_IN_A_LOOP = "Sync methods should not be called from within an `asyncio` event loop. Use `await response` instead."


class DeploymentResponse(Generic[T_co]):
    """The result of `handle.remote()`: await it, block for it with `result()`, or pass it to another call.

    It may be awaited more than once. The call runs whether or not anybody waits for it; a task that is cancelled while
    it waits cancels the call.
    """

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._cancelled = False

    @property
    def request_id(self) -> str:
        """Return the id of the request that this call is part of."""
        return self._call.request_id

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._wait().__await__()

    def result(self, *, timeout_s: float | None = None, cancel_on_timeout: bool = True) -> T_co:
        """Block until the answer is there and return it; only outside of event loops.

        Args:
            timeout_s: Seconds to wait; None waits for ever.
            cancel_on_timeout: Cancel the call when the time is over.

        Raises:
            TimeoutError: No answer within `timeout_s`.
            RequestCancelledError: The call was cancelled.
            Exception: Whatever the called code raised, as an instance of its own type and of `RemoteError`.
        """
        if running_loop() is not None:
            raise RuntimeError(NOT_IN_A_LOOP)
        future = self._call.thread_future()
        try:
            return future.result(timeout_s)  # type: ignore[no-any-return]
        except concurrent.futures.CancelledError:
            raise RequestCancelledError(self.request_id) from None
        except TimeoutError:
            if future.done():
                raise
            if cancel_on_timeout:
                self.cancel()
            raise TimeoutError(
                f"No answer from {self._call.deployment} within {timeout_s}s (request {self.request_id})."
            ) from None

    def cancel(self) -> None:
        """Stop the call, as far as that is possible: a waiting one is dropped, a running `async def` is cancelled."""
        self._cancelled = True
        self._call.cancel()

    def cancelled(self) -> bool:
        """Say whether `cancel()` was called."""
        return self._cancelled

    def __reduce__(self) -> NoReturn:
        raise SalverError(
            "`DeploymentResponse` is not serializable. If you are passing it to another deployment's handle, "
            "please only pass `DeploymentResponse` objects as top level arguments."
        )

    async def _wait(self) -> T_co:
        task = asyncio.current_task()
        # A task that cleans up after its cancellation counts as being cancelled to its end.
        before = task.cancelling() if task is not None else 0
        try:
            return await self._call.awaitable()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if task is not None and task.cancelling() > before:
                raise
            # It is the call that was cancelled, here or elsewhere, and not the task that waits.
            raise RequestCancelledError(self.request_id) from None


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this thread, or None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
