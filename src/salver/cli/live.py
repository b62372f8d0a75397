"""The live view of `salver run` on a terminal: what is starting, for how long; then where it answers."""

import shlex
import time
from collections.abc import Collection
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from salver.api.client import url_of
from salver.cli.display import Display, Now
from salver.schema.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ReplicaState,
    ServeStatus,
)

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_DEPLOYMENT_COLOUR = {"HEALTHY": "green", "UNHEALTHY": "red", "DEPLOY_FAILED": "red"}


class LiveDisplay(Display):
    """A spinner with a line for each deployment until all are ready, and output in colours."""

    def __init__(
        self, import_path: str, name: str, *, now: Now = time.monotonic, console: Console | None = None
    ) -> None:
        super().__init__(import_path, name, now=now)
        self._console = console or Console(highlight=False)
        self._application: ApplicationStatusOverview | None = None
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._colours: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._begin_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_live()

    def show_output(self, source: str, lines: tuple[str, ...]) -> None:
        """Show what a process wrote, each deployment in a colour of its own."""
        deployment = source.partition("#")[0]
        colour = self._colours.setdefault(deployment, _COLOURS[len(self._colours) % len(_COLOURS)])
        for line in lines:
            self._console.print(Text.assemble((source, colour), (" │ ", "dim"), Text.from_ansi(line)))

    def status(self, status: ServeStatus) -> None:
        """Show a status."""
        self._application = status.applications.get(self.name)
        super().status(status)

    def ready(self, http_url: str | None, route_prefix: str | None) -> None:
        """The application answers."""
        self._end_live()
        self._was_ready = True
        self._last = (ApplicationStatus.RUNNING, "")
        where = url_of(http_url or "", route_prefix)
        self._console.print(
            Text.assemble(
                ("✓ ", "bold green"),
                (self.import_path, "bold"),
                f" is ready in {self.elapsed_s:.2f} s at ",
                (where, f"bold cyan link {where}"),
            )
        )
        self._console.print(Text.assemble("  ", (f"curl {shlex.quote(where)}", "bold"), ("    Ctrl-C stops it", "dim")))

    def reloading(self, paths: Collection[str]) -> None:
        """Files have changed."""
        super().reloading(paths)
        self._begin_live()

    def stopping(self) -> None:
        """The run ends."""
        self._end_live()
        super().stopping()

    def fail(self, reason: str) -> None:
        """Something went wrong."""
        self._end_live()
        first, _, rest = reason.partition("\n")
        self._console.print(Text.assemble(("✗ ", "bold red"), (first, "bold"), f"\n{rest}" if rest else ""))

    def say(self, text: str) -> None:
        """Show one line."""
        self._console.print(Text(text))

    def _begin_live(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, get_renderable=self._view, transient=True, refresh_per_second=12)
            self._live.start()

    def _end_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _view(self) -> RenderableType:
        application = self._application
        doing = "starting Salver" if application is None else _doing(application)
        self._spinner.update(
            text=Text.assemble((self.import_path, "bold"), f"  {doing}  ", (f"{self.elapsed_s:.1f} s", "dim"))
        )
        if application is None or not application.deployments:
            return self._spinner
        table = Table.grid(padding=(0, 2))
        for name, deployment in application.deployments.items():
            table.add_row(Text("  " + name), *_cells(deployment))
        return Group(self._spinner, table)


def _doing(application: ApplicationStatusOverview) -> str:
    if not application.deployments:
        return "importing"
    starting = sum(each.replica_states.get(ReplicaState.STARTING, 0) for each in application.deployments.values())
    return f"starting {starting} replica{'s' if starting != 1 else ''}" if starting else "deploying"


def _cells(deployment: DeploymentStatusOverview) -> tuple[Text, Text]:
    states = "  ".join(f"{count} {state.value.lower()}" for state, count in deployment.replica_states.items())
    colour = _DEPLOYMENT_COLOUR.get(deployment.status.value, "yellow")
    message = deployment.message.partition("\n")[0]
    return Text(states or "waiting", style=colour), Text(message, style="dim")
