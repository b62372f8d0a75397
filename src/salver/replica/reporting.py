"""What this replica says of itself: the models that it holds, and what the user's class records."""

import asyncio
from collections.abc import Callable
from typing import Any

from salver.lib.clock import Clock
from salver.lib.tasks import Tasks
from salver.replica.hooks import Hook, checked_metadata, checked_stats
from salver.replica.reports import Reports
from salver.replica.user_code import UserCode
from salver.runtime.models import ReplicaModels
from salver.schema.messages import Message
from salver.schema.process_payloads import ReplicaPayload

HOOK_TIMEOUT_S = 10.0
"""How long `record_autoscaling_stats` and `record_replica_metadata` may take."""


class Reporting:
    """Watches the models and asks the user's class.

    Args:
        models: This replica's.
        tell: Tells the controller.
        tasks: Owns what asks.
    """

    def __init__(
        self,
        payload: ReplicaPayload,
        user_code: UserCode,
        models: ReplicaModels,
        tell: Callable[[Message], None],
        tasks: Tasks,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._payload = payload
        self._user_code = user_code
        self._models = models
        self._tasks = tasks
        self._reports = Reports(payload.replica, tell, loop.time, loop.call_later)
        models.on_change = self._models_changed
        self._models_changed()

    async def record_metadata(self) -> None:
        """Ask the user's class for what does not change; what is known by then is told before anything else."""
        hook = self._hook("record_replica_metadata", checked_metadata, HOOK_TIMEOUT_S)
        if hook is not None:
            await hook.ask(lambda answer: self._reports.change("metadata", answer))
        self._reports.flush()

    def start(self, clock: Clock) -> None:
        """Ask for statistics from now on."""
        payload = self._payload
        self._poll("routing_stats", payload.routing_stats_period_s, payload.routing_stats_timeout_s, clock)
        self._poll("autoscaling_stats", payload.autoscaling_stats_period_s, HOOK_TIMEOUT_S, clock)

    def repeat(self) -> None:
        """Tell a new controller all that was told."""
        self._reports.repeat()

    def close(self) -> None:
        """Tell nothing more."""
        self._models.on_change = _nothing
        self._reports.close()

    def _models_changed(self) -> None:
        self._reports.change("multiplexed_model_ids", self._models.ids)

    def _poll(self, field: str, period_s: float, timeout_s: float, clock: Clock) -> None:
        hook = self._hook(f"record_{field}", checked_stats, timeout_s)
        if hook is not None:
            asking = hook.ask_for_ever(
                lambda answer: self._reports.change(field, answer), period_s=period_s, clock=clock
            )
            self._tasks.start(asking, name=f"poll record_{field}")

    def _hook(self, name: str, checked: Callable[[Any], Any], timeout_s: float) -> Hook | None:
        method = self._user_code.find_hook(name)
        return None if method is None else Hook(method, checked, name=name, timeout_s=timeout_s, tasks=self._tasks)


def _nothing() -> None:
    """Nobody is told."""
