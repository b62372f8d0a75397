"""The answer to a handle call, before and after it has arrived."""

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from salver.handle.outcome import Outcome
from salver.handle.references import reduce_response
from salver.schema.errors import RequestCancelledError, SalverError

if TYPE_CHECKING:
    from salver.handle.call import Call

if TYPE_CHECKING:
    import typing_extensions

    T_co = typing_extensions.TypeVar("T_co", covariant=True, default=Any)
else:
    T_co = TypeVar("T_co", covariant=True)

NOT_IN_A_LOOP = "Sync methods should not be called from within an `asyncio` event loop. Use `await response` instead."
running_loop = asyncio._get_running_loop
"""Returns the event loop of this thread, or None outside of one."""


class DeploymentResponse(Outcome, Generic[T_co]):
    """The result of `handle.remote()`: await it, block for it with `result()`, or pass it to another call.

    It may be awaited more than once. The call runs whether or not anybody waits for it; a task that is cancelled while
    it waits cancels the call.

    Attributes:
        request_id: The id of the request that this call is part of.
        by_reference: The handle was asked for results by reference.
        call: What it comes from, until it is settled.
    """

    by_reference = True
    call: "Call | None" = None
    _cancelled = False

    def __init__(self, loop: asyncio.AbstractEventLoop, request_id: str) -> None:
        self._loop = loop
        self.request_id = request_id

    def __await__(self) -> Generator[Any, None, T_co]:
        if not self.settled:
            try:
                yield from self.future()
            except asyncio.CancelledError:
                # It is the task that waits which is cancelled: what happens to the call only wakes it.
                if self.call is not None:
                    self.call.cancel()
                raise
        return self.get()  # type: ignore[no-any-return]

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
        call = self.call
        if not self.settled and not self.block(timeout_s):
            if cancel_on_timeout:
                self.cancel()
            who, where = (
                ("whoever passed it by reference", "") if call is None else (call.deployment, call.whereabouts())
            )
            raise TimeoutError(f"No answer from {who} within {timeout_s}s (request {self.request_id}){where}.")
        return self.get()  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """Stop the call, as far as that is possible: a waiting one is dropped, a running `async def` is cancelled."""
        self._cancelled = True
        if self.call is not None:
            self.call.cancel()

    def cancelled(self) -> bool:
        """Say whether `cancel()` was called."""
        return self._cancelled

    async def _to_object_ref(self) -> NoReturn:
        """Refuse: there are no object references here."""
        self._to_object_ref_sync()

    def _to_object_ref_sync(self) -> NoReturn:
        """Refuse: there are no object references here."""
        raise SalverError(
            "This response has no Ray object reference: the local engine runs it without Ray. `_to_object_ref()` needs "
            "the Ray engine. To use the result elsewhere, await the response, or pass it to another handle's call."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_response(self)


class ReferencedResponse(DeploymentResponse[T_co]):
    """A response that arrived by reference: the call is another process's."""

    def cancel(self) -> None:
        """Want it no more; the call itself is its caller's, and goes on."""
        super().cancel()
        self._loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        if not self.settled:
            self.settle_failed(RequestCancelledError(self.request_id))
