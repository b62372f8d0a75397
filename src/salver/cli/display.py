"""What `salver run` shows: a live view on a terminal, one line per event elsewhere."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from salver.api.client import url_of
from salver.api.instance import Report
from salver.schema.messages import InstanceEnded, Notice, Output
from salver.schema.status import ApplicationStatus, ServeStatus

Now = Callable[[], float]

_MOST_NAMES = 3


class Display:
    """One line per event: for pipes, files and CI, and the base of the live view."""

    def __init__(self, import_path: str, name: str, *, now: Now = time.monotonic) -> None:
        self.import_path = import_path
        self.name = name
        self._now = now
        self._began = now()
        self._was_ready = False
        self._last: tuple[ApplicationStatus, str] | None = None

    def __enter__(self) -> Self:
        self.say(f"Running import path: '{self.import_path}'.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start, or since the last reload began."""
        return self._now() - self._began

    def report(self, report: Report) -> None:
        """Show what an instance has to say."""
        match report:
            case Output():
                self.show_output(report.source, report.lines)
            case Notice():
                self.say(report.text)
            case InstanceEnded():
                pass  # It is shown as the reason of the failure.

    def show_output(self, source: str, lines: tuple[str, ...]) -> None:
        """Show what a process wrote."""
        for line in lines:
            print(f"{source} | {line}", flush=True)

    def started(self, http_url: str | None) -> None:
        """The instance runs; nothing is deployed yet."""

    def status(self, status: ServeStatus) -> None:
        """Show a status; after the first ready, only changes for the worse and back are worth a line."""
        application = status.applications.get(self.name)
        if application is None:
            return
        now = (application.status, application.message)
        if self._was_ready and now != self._last and application.status is not ApplicationStatus.DEPLOYING:
            self.say(f"Application '{self.name}' is {application.status}. {application.message}".rstrip())
        self._last = now

    def ready(self, http_url: str | None, route_prefix: str | None) -> None:
        """The application answers."""
        self._was_ready = True
        self._last = (ApplicationStatus.RUNNING, "")
        where = url_of(http_url or "", route_prefix)
        self.say(f"Application '{self.name}' is ready at {where} ({self.elapsed_s:.2f} s)")
        self.say(f"Try it:  curl {shlex.quote(where)}")

    def reloading(self, paths: Collection[str]) -> None:
        """Files have changed."""
        self._began = self._now()
        self._was_ready = False
        names = sorted(os.path.relpath(path) for path in paths)
        more = " and more" if len(names) > _MOST_NAMES else ""
        self.say(f"Changed: {', '.join(names[:_MOST_NAMES])}{more}. Deploying again.")

    def stopping(self) -> None:
        """The run ends."""
        self._was_ready = False
        self.say("Stopping: running requests are finished first. (Ctrl-C again stops at once.)")

    def hurrying(self) -> None:
        """The run ends at once."""
        self.say("Stopping at once.")

    def fail(self, reason: str) -> None:
        """Something went wrong; the reason is all a person gets to read."""
        print(f"Error: {reason}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Show one line."""
        print(text, flush=True)
