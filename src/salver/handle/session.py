"""Where this process's handles live: the event loop of its connections, its line to the controller, its routers."""

import asyncio
import time
from dataclasses import dataclass, field

from salver.handle.link import ControllerLink
from salver.handle.routers import Routers
from salver.lib.deadlines import Deadlines
from salver.lib.loading import loading
from salver.lib.process_local import ProcessLocal
from salver.schema.errors import SalverError
from salver.transport.sockets import Dial, dial


@dataclass
class Session:
    """A process's connection to an instance.

    Attributes:
        loop: The loop that all of it lives on; in a replica the loop user code runs on, in a driver one of a thread.
        app_name: The application this process is part of; "" in a driver.
        dial: Opens connections to the processes of the instance.
        deadlines: Of the calls that are made for requests with a deadline.
    """

    loop: asyncio.AbstractEventLoop
    link: ControllerLink
    routers: Routers
    controller_address: str
    app_name: str = ""
    dial: Dial = dial
    closed: bool = field(default=False)
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        # Not the loop's own time, which stands still between its steps: threads ask, too.
        self.deadlines = Deadlines(time.monotonic, self.loop.call_later)


_session: ProcessLocal[Session] = ProcessLocal()


def set_session(session: Session | None) -> None:
    """Make this the session of the process."""
    _session.set(session)


def find_session() -> Session | None:
    """Return the session of the process, or None."""
    session = _session.get()
    return None if session is None or session.closed else session


def current_session() -> Session:
    """Return the session of the process.

    Raises:
        SalverError: There is none; nothing runs yet, or it has ended.
    """
    session = _session.get()
    if session is not None and not session.closed:
        return session
    if (what := loading()) is not None:
        raise SalverError(
            f"A handle was called while {what} was being imported, before anything runs. "
            'Put the call under `if __name__ == "__main__":`.'
        )
    if _session.get() is not None:
        raise SalverError("The instance that this process took part in has ended, or was left.")
    raise SalverError("Nothing runs here: call serve.run(app) first.")
