"""The lifespan of a user's ASGI application: startup before the first request, shutdown after the last."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from salver.lib.tasks import Tasks
from salver.runtime.ingress import AsgiApp
from salver.schema.errors import SalverError

Message = MutableMapping[str, Any]

_STARTUP, _SHUTDOWN = "lifespan.startup", "lifespan.shutdown"


class Lifespan:
    """Speaks the ASGI lifespan protocol with an application.

    Attributes:
        state: What the application put there at startup; each request gets a shallow copy.
    """

    def __init__(self, app: AsgiApp, tasks: Tasks) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._tasks = tasks
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._supported = False
        self._task: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Run the application's startup; one that does not know the protocol is left alone.

        Raises:
            SalverError: The startup failed.
        """
        self._task = self._tasks.start(self._run(), name="lifespan")
        await self._orders.put({"type": _STARTUP})
        answer = await self._answers.get()
        if answer["type"] == "lifespan.startup.failed":
            raise SalverError(f"ASGI lifespan startup failed: {answer.get('message', '')}".rstrip(": "))
        self._supported = answer["type"] == "lifespan.startup.complete"

    async def stop(self) -> None:
        """Run the application's shutdown.

        Raises:
            SalverError: The shutdown failed.
        """
        if not self._supported:
            return
        await self._orders.put({"type": _SHUTDOWN})
        answer = await self._answers.get()
        if answer["type"] == "lifespan.shutdown.failed":
            raise SalverError(f"ASGI lifespan shutdown failed: {answer.get('message', '')}".rstrip(": "))

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._orders.get, self._answers.put)
        except Exception:  # noqa: BLE001 - the protocol's way of saying "I do not know lifespans"
            self._supported = False
        finally:
            # Whoever waits for an answer must not wait for an application that has ended.
            await self._answers.put({"type": "ended"})
