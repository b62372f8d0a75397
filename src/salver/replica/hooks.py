"""What the user's class says of itself when it is asked: `record_routing_stats` and the like."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from math import isfinite
from numbers import Real
from typing import Any, TypeVar

from salver.lib.clock import Clock
from salver.lib.tasks import Tasks
from salver.lib.tracebacks import user_traceback
from salver.schema.conversion import json_value
from salver.telemetry.logs import LOGGER_NAME

T = TypeVar("T")

logger = logging.getLogger(LOGGER_NAME)


class Hook:
    """One of the user's methods that are asked again and again.

    What goes wrong is logged, once until it goes well again, and otherwise ignored.

    Args:
        method: The user's, plain or async; a plain one runs in a thread.
        checked: Returns what the user's method returned, or raises.
        name: For the log.
        timeout_s: After so long an async one is cancelled; what a plain one returns later does not count.
    """

    def __init__(
        self, method: Callable[[], Any], checked: Callable[[Any], T], *, name: str, timeout_s: float, tasks: Tasks
    ) -> None:
        self._method = method
        self._checked = checked
        self._name = name
        self._timeout_s = timeout_s
        self._tasks = tasks
        self._is_async = inspect.iscoroutinefunction(method)
        self._complained = False

    async def ask(self, on_answer: Callable[[Any], None]) -> None:
        """Call the user's method and hand on what it returns, if that is of any use."""
        call = self._tasks.start(self._call(), name=self._name)
        try:
            await asyncio.wait({call}, timeout=self._timeout_s)
            if not call.done():
                self._complain(f"did not return within {self._timeout_s:g} s")
                if self._is_async:
                    call.cancel()
                # Never two at once.
                await asyncio.wait({call})
            elif (answer := call.result()) is not None:
                self._complained = False
                on_answer(answer)
        finally:
            call.cancel()

    async def ask_for_ever(self, on_answer: Callable[[Any], None], *, period_s: float, clock: Clock) -> None:
        """Ask now and in every period."""
        while True:
            began = clock.now()
            await self.ask(on_answer)
            await clock.sleep_until(began + period_s)

    async def _call(self) -> Any:
        try:
            result = self._method() if self._is_async else await asyncio.to_thread(self._method)
            return self._checked(await result if inspect.isawaitable(result) else result)
        except Exception as error:  # noqa: BLE001 - user code may raise anything, and serving goes on
            self._complain(f"raised or returned what is of no use\n{user_traceback(error)}")
            return None

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            logger.warning("%s %s", self._name, what)


def checked_stats(value: Any) -> dict[str, float]:
    """Return statistics as they travel.

    Raises:
        TypeError: They are no dictionary of names and finite numbers.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dictionary of names and numbers, got {value!r} ({type(value).__name__})")
    for name, number in value.items():
        if (
            not isinstance(name, str)
            or isinstance(number, bool)
            or not isinstance(number, Real)
            or not isfinite(number)
        ):
            raise TypeError(f"expected a name and a finite number, got {name!r}: {number!r}")
    return {name: float(number) for name, number in value.items()}


def checked_metadata(value: Any) -> dict[str, Any]:
    """Return metadata as it travels.

    Raises:
        TypeError: It is no dictionary.
        InvalidOption: JSON cannot hold it.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dictionary, got {value!r} ({type(value).__name__})")
    metadata: dict[str, Any] = json_value("record_replica_metadata()", value)
    return metadata
