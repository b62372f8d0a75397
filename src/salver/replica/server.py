"""The replica's server: one copy of the user's code, and all who call it."""

import asyncio
from typing import TYPE_CHECKING

from salver.replica.admission import Admission
from salver.replica.caller import Caller
from salver.replica.user_code import UserCode

if TYPE_CHECKING:
    from salver.replica.asgi import AsgiServing


class ReplicaServer:
    """Runs the requests of all callers against one copy of the user's code.

    Args:
        app_name: The application it is part of.
        expose_tracebacks: Put tracebacks into 500 answers.

    Attributes:
        asgi: The application that `@ingress` put in front of the class, which answers all HTTP requests; or None.
    """

    def __init__(
        self,
        user_code: UserCode,
        *,
        app_name: str,
        max_ongoing_requests: int,
        expose_tracebacks: bool,
    ) -> None:
        self.user_code = user_code
        self.asgi: AsgiServing | None = None
        self.app_name = app_name
        self.expose_tracebacks = expose_tracebacks
        self.admission: Admission[Caller] = Admission(max_ongoing_requests, _offer)
        self.callers: set[Caller] = set()
        self._idle = asyncio.Event()

    def accept(self) -> Caller:
        """Return the sink of a new connection."""
        return Caller(self)

    def change_limit(self, max_ongoing_requests: int) -> None:
        """Work on at most this many requests at once from now on; none is interrupted."""
        self.user_code.change_max_threads(max_ongoing_requests)
        self.admission.change_limit(max_ongoing_requests)

    async def drain(self) -> None:
        """Refuse what is new and return when the last request is finished and no caller has a connection.

        A caller closes its connection once it knows that this replica is leaving and has its last answer, so no
        request can be on its way when this returns.
        """
        self.admission.close()
        for caller in self.callers:
            caller.close_sockets()
        while self.admission.running or self.callers:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Cancel what runs and end all connections, from which callers learn that there will be no answer."""
        for caller in list(self.callers):
            caller.cut_off()

    def finished(self) -> None:
        """A request is finished."""
        self.admission.leave()
        if self.admission.closed:
            self._idle.set()

    def left(self, caller: Caller) -> None:
        """A caller's connection is closed."""
        self.callers.discard(caller)
        self.admission.forget(caller)
        self._idle.set()


def _offer(caller: Caller) -> None:
    caller.offer_slot()
