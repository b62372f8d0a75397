"""A user's ASGI application on a replica: its lifespan, its state, and our errors as the answers they stand for."""

from typing import Any

from starlette.responses import Response

from salver.lib.tasks import Tasks
from salver.replica.lifespan import Lifespan
from salver.runtime.ingress import AsgiApp, Receive, Scope, Send, ingress_of
from salver.schema.errors import BackPressureError, DeploymentUnavailableError, ReplicaDiedError, RequestTimeoutError
from salver.schema.outcomes import outcome_of

_ANSWERED_BY_US = (BackPressureError, DeploymentUnavailableError, ReplicaDiedError, RequestTimeoutError)


class AsgiServing:
    """An application that has started and answers requests."""

    def __init__(self, app: AsgiApp, lifespan: Lifespan) -> None:
        self._app = app
        self._lifespan = lifespan

    @classmethod
    async def start(cls, instance: Any, tasks: Tasks) -> "AsgiServing | None":
        """Start the application in front of an instance; None where its class has no ingress.

        Raises:
            TypeError: What was built is no ASGI application.
            SalverError: Its startup failed.
        """
        ingress = ingress_of(type(instance))
        if ingress is None:
            return None
        app = ingress.application(instance)
        _answer_our_errors(app)
        lifespan = Lifespan(app, tasks)
        await lifespan.start()
        return cls(app, lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._lifespan.state:
            scope["state"] = self._lifespan.state.copy()
        await self._app(scope, receive, send)

    async def stop(self) -> None:
        """Run the application's shutdown.

        Raises:
            SalverError: It failed.
        """
        await self._lifespan.stop()


def _answer_our_errors(app: Any) -> None:
    """Answer what a call to another deployment raised as the proxy would, unless the user's handlers do."""
    handlers = getattr(app, "exception_handlers", None)
    if isinstance(handlers, dict):
        for kind in _ANSWERED_BY_US:
            handlers.setdefault(kind, _answer)


def _answer(_request: Any, error: Exception) -> Response:
    outcome = outcome_of(error)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in outcome.headers}
    return Response(outcome.body, outcome.status, headers)
