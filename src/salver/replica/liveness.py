"""What the controller is told of how a replica fares: its health checks, and whether its event loop turns."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from salver.engine.base import ProcessContext
from salver.handle.link import ControllerLink
from salver.lib.clock import MonotonicClock
from salver.lib.tasks import Tasks
from salver.replica.health import HealthChecks
from salver.replica.user_code import UserCode
from salver.replica.watchdog import BEAT_S, REPORT_EVERY_S, Watchdog
from salver.schema.errors import SalverError
from salver.schema.messages import Done, Message, ReplicaHealth
from salver.schema.process_payloads import ReplicaPayload
from salver.telemetry.logs import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)


class Liveness:
    """Checks user code that was configured, and watches the running event loop.

    Args:
        context: Of the replica's process.
        tell: Tells the controller, on the line that lives on the event loop.
    """

    def __init__(
        self, payload: ReplicaPayload, context: ProcessContext, user_code: UserCode, tell: Callable[[Message], None]
    ) -> None:
        self._payload = payload
        self._name = context.name
        self._dial = context.dial
        self._tell = tell
        # A hold is noticed by a late beat, and must be noticed in checks that may take little time.
        self._watchdog = Watchdog(self._loop_held, beat_s=min(BEAT_S, payload.health_check_timeout_s / 10))
        self._checks = HealthChecks(
            user_code.check_health,
            period_s=payload.health_check_period_s,
            timeout_s=payload.health_check_timeout_s,
            held_s=self._watchdog.held_s,
            tell=self._checked,
        )
        self._checking: asyncio.Task[None] | None = None

    async def check_first(self) -> None:
        """Check once; what it raises fails the start."""
        await self._checks.check()

    def start(self, tasks: Tasks) -> None:
        """Check and tell from now on."""
        self._checking = tasks.start(self._checks.run(MonotonicClock(), random.Random()), name="health checks")

    def close(self) -> None:
        """Check and watch no longer."""
        self._watchdog.close()
        if self._checking is not None:
            self._checking.cancel()

    def _checked(self, failures: int, reason: str) -> None:
        if failures:
            logger.warning("%s: health check failed (%d in a row)\n%s", self._name, failures, reason)
        self._tell(ReplicaHealth(replica=self._payload.replica, failures=failures, reason=reason))

    def _loop_held(self, held_s: float, where: str) -> None:
        """Tell of a held loop, from the watchdog's thread and on a line of its own: the usual one is held, too."""
        logger.warning("%s: user code has held the event loop for %.0f s\n%s", self._name, held_s, where)
        message = ReplicaHealth(
            replica=self._payload.replica, failures=self._checks.failures, reason=where, loop_held_s=held_s
        )
        # Where there is no controller now, the next one asks for no history.
        with suppress(SalverError, OSError, TimeoutError):
            asyncio.run(asyncio.wait_for(self._ask_apart(message), REPORT_EVERY_S))

    async def _ask_apart(self, message: Message) -> None:
        tasks = Tasks(on_error=lambda _name, _error: None)
        link = ControllerLink(role="replica", name=self._name, tasks=tasks, dial=self._dial)
        await link.connect(self._payload.controller_address)
        await link.ask(message, Done)
        link.close()
