"""What `salver run` shows: plain lines for pipes, a live view for terminals."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from salver.cli.display import Display
from salver.cli.live import LiveDisplay
from salver.schema.messages import InstanceEnded, Notice, Output
from salver.schema.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
    ServeStatus,
)

URL = "http://127.0.0.1:8000"


def deployment(
    status: DeploymentStatus = DeploymentStatus.UPDATING, message: str = "", **states: int
) -> DeploymentStatusOverview:
    """Return a deployment; replicas by state."""
    return DeploymentStatusOverview(
        status=status,
        status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
        replica_states={ReplicaState(state.upper()): count for state, count in states.items()},
        message=message,
    )


def serving(status: ApplicationStatus, message: str = "", /, **deployments: DeploymentStatusOverview) -> ServeStatus:
    """Return the status of an instance with the application "shop"."""
    overview = ApplicationStatusOverview(
        status=status, message=message, last_deployed_time_s=0.0, deployments=deployments
    )
    return ServeStatus(applications={"shop": overview})


class Clock:
    """The time that displays see."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


# ── Plain lines ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plain(clock: Clock) -> Display:
    """Return a display of lines."""
    return Display("main:app", "shop", now=clock)


Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return what reads the lines that were shown since the last time."""

    def read() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return read


def test_a_run_begins_with_what_is_run(plain: Display, lines: Lines) -> None:
    with plain as entered:
        assert entered is plain
    assert lines() == ["Running import path: 'main:app'."]


def test_ready_says_where_after_how_long_and_how_to_try_it(plain: Display, lines: Lines, clock: Clock) -> None:
    clock.advance(1.25)
    plain.ready(URL, "/")
    assert lines() == [f"Application 'shop' is ready at {URL}/ (1.25 s)", f"Try it:  curl {URL}/"]


@pytest.mark.parametrize(
    ("url", "prefix", "command"),
    [
        (URL, "/a", f"curl {URL}/a"),
        (URL, None, f"curl {URL}/"),
        ("http://[::1]:8000", "/", "curl 'http://[::1]:8000/'"),
        (URL, "/a b&c", f"curl '{URL}/a b&c'"),
    ],
    ids=["prefix", "no prefix", "IPv6", "for the shell"],
)
def test_the_command_to_try_can_be_pasted(
    plain: Display, lines: Lines, url: str, prefix: str | None, command: str
) -> None:
    plain.ready(url, prefix)
    assert lines()[1] == f"Try it:  {command}"


def test_output_has_its_source_in_front_of_each_line(plain: Display, lines: Lines) -> None:
    plain.report(Output("Model#1234abcd", ("one", "", "two")))
    assert lines() == ["Model#1234abcd | one", "Model#1234abcd | ", "Model#1234abcd | two"]


def test_notices_are_lines_and_the_end_is_told_elsewhere(plain: Display, lines: Lines) -> None:
    plain.report(Notice("CPUs are shared."))
    plain.report(InstanceEnded("The agent died."))
    assert lines() == ["CPUs are shared."]


def test_failures_go_to_standard_error(plain: Display, capsys: pytest.CaptureFixture[str]) -> None:
    plain.fail("no port\nfree")
    assert capsys.readouterr() == ("", "Error: no port\nfree\n")


def test_before_the_first_ready_a_status_is_worth_no_line(plain: Display, lines: Lines) -> None:
    for status in ApplicationStatus:
        plain.status(serving(status, "why"))
    plain.status(ServeStatus())
    assert lines() == []


def test_afterwards_each_change_for_the_worse_and_back_is_worth_a_line(plain: Display, lines: Lines) -> None:
    plain.ready(URL, "/")
    lines()
    for status, message in [
        (ApplicationStatus.RUNNING, ""),
        (ApplicationStatus.UNHEALTHY, "a replica died"),
        (ApplicationStatus.UNHEALTHY, "a replica died"),
        (ApplicationStatus.DEPLOYING, "again"),
        (ApplicationStatus.RUNNING, ""),
        (ApplicationStatus.RUNNING, ""),
    ]:
        plain.status(serving(status, message))
    assert lines() == ["Application 'shop' is UNHEALTHY. a replica died", "Application 'shop' is RUNNING."]


def test_other_applications_are_not_shown(plain: Display, lines: Lines) -> None:
    other = Display("main:app", "other")
    other.ready(URL, "/")
    lines()
    other.status(serving(ApplicationStatus.UNHEALTHY))
    assert lines() == []


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["b.py", "a.py"], "a.py, b.py"),
        (["a.py", "b.py", "c.py"], "a.py, b.py, c.py"),
        (["d.py", "c.py", "b.py", "a.py"], "a.py, b.py, c.py and more"),
    ],
    ids=["two", "three", "four"],
)
def test_a_reload_names_some_of_the_changed_files(
    plain: Display, lines: Lines, names: list[str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain.reloading({os.path.join(tmp_path, name) for name in names})
    assert lines() == [f"Changed: {shown}. Deploying again."]


def test_a_reload_begins_a_new_count_of_seconds_and_is_silent_until_it_is_ready(
    plain: Display, lines: Lines, clock: Clock
) -> None:
    plain.ready(URL, "/")
    clock.advance(50)
    plain.reloading(["main.py"])
    lines()
    plain.status(serving(ApplicationStatus.UNHEALTHY))
    clock.advance(0.5)
    plain.ready(URL, "/")
    assert lines()[0] == f"Application 'shop' is ready at {URL}/ (0.50 s)"


def test_stopping_is_told_and_what_the_status_says_then_is_not(plain: Display, lines: Lines) -> None:
    plain.ready(URL, "/")
    plain.stopping()
    plain.status(serving(ApplicationStatus.DELETING))
    plain.hurrying()
    assert lines()[2:] == [
        "Stopping: running requests are finished first. (Ctrl-C again stops at once.)",
        "Stopping at once.",
    ]


# ── The live view ───────────────────────────────────────────────────────────────────────────────────────────────────


class Screen:
    """A live display and what it has written."""

    def __init__(self, clock: Clock) -> None:
        self.console = Console(record=True, file=io.StringIO(), width=100, highlight=False)
        self.display = LiveDisplay("main:app", "shop", now=clock, console=self.console)

    def written(self) -> str:
        """Return what was written since the last time."""
        return self.console.export_text()

    def view(self) -> str:
        """Return what the view shows now."""
        self.written()
        self.console.print(self.display._view())
        lines = self.written().splitlines()
        return "\n".join(line.rstrip() for line in lines)


@pytest.fixture
def screen(clock: Clock) -> Screen:
    """Return a terminal."""
    return Screen(clock)


def test_the_view_begins_with_what_starts_and_for_how_long(screen: Screen, clock: Clock) -> None:
    clock.advance(1.25)
    assert re.fullmatch(r"\S main:app  starting Salver  1\.2 s", screen.view())


def test_an_application_without_deployments_is_being_imported(screen: Screen) -> None:
    screen.display.status(serving(ApplicationStatus.DEPLOYING))
    assert "main:app  importing  0.0 s" in screen.view()


@pytest.mark.parametrize(
    ("deployments", "doing"),
    [
        ({"a": deployment(starting=1)}, "starting 1 replica "),
        ({"a": deployment(starting=1), "b": deployment(starting=2, running=1)}, "starting 3 replicas "),
        ({"a": deployment(running=1)}, "deploying "),
        ({"a": deployment()}, "deploying "),
    ],
    ids=["one", "some", "none", "not yet"],
)
def test_the_view_counts_the_replicas_that_start(
    screen: Screen, deployments: dict[str, DeploymentStatusOverview], doing: str
) -> None:
    screen.display.status(serving(ApplicationStatus.DEPLOYING, **deployments))
    assert f"main:app  {doing} 0.0 s" in screen.view()


def test_each_deployment_has_a_line(screen: Screen) -> None:
    screen.display.status(
        serving(
            ApplicationStatus.DEPLOYING,
            Ingress=deployment(message="waiting for CPUs\nand more"),
            Model=deployment(DeploymentStatus.HEALTHY, starting=1, running=2),
        )
    )
    _, *rows = screen.view().splitlines()
    assert [re.split(r"  +", row.strip()) for row in rows] == [
        ["Ingress", "waiting", "waiting for CPUs"],
        ["Model", "1 starting", "2 running"],
    ]


def test_names_and_messages_are_text_and_no_markup(screen: Screen) -> None:
    screen.display.status(
        serving(ApplicationStatus.DEPLOYING, **{"[red]x": deployment(DeploymentStatus.UNHEALTHY, "[/] no [b]weights")})
    )
    assert "[/] no [b]weights" in screen.view()
    assert "[red]x" in screen.view()
    screen.display.report(Notice("[/] shared [b]CPUs"))
    assert screen.written() == "[/] shared [b]CPUs\n"


def test_the_live_view_leaves_only_where_it_answers(screen: Screen, clock: Clock) -> None:
    with screen.display:
        clock.advance(0.5)
        screen.display.ready("http://[::1]:8000", "/a")
        assert screen.written().splitlines()[-2:] == [
            "✓ main:app is ready in 0.50 s at http://[::1]:8000/a",
            "  curl 'http://[::1]:8000/a'    Ctrl-C stops it",
        ]


def test_changes_for_the_worse_are_shown_below(screen: Screen) -> None:
    screen.display.ready(URL, "/")
    screen.written()
    screen.display.status(serving(ApplicationStatus.UNHEALTHY, "a replica died"))
    assert screen.written() == "Application 'shop' is UNHEALTHY. a replica died\n"


def test_output_keeps_its_own_colours_and_gets_one_for_its_deployment(screen: Screen) -> None:
    screen.display.report(Output("Model#1", ("plain", "\x1b[31mred\x1b[0m [b]text")))
    screen.display.report(Output("Ingress#1", ("other",)))
    screen.display.report(Output("Model#2", ("again",)))
    html = screen.console.export_html(inline_styles=False, clear=False)
    assert screen.written().splitlines() == [
        "Model#1 │ plain",
        "Model#1 │ red [b]text",
        "Ingress#1 │ other",
        "Model#2 │ again",
    ]
    colours = {text: colour for colour, text in re.findall(r'<span class="(r\d+)">([^<]+)</span>', html)}
    assert colours["Model#1"] == colours["Model#2"] != colours["Ingress#1"]
    assert colours["red"] != colours["Model#1"]


def test_a_failure_ends_the_live_view_and_shows_all_of_the_reason(screen: Screen) -> None:
    with screen.display:
        screen.display.fail("no model\nTraceback:\n  [b]line")
        assert screen.written().rstrip().splitlines()[-3:] == ["✗ no model", "Traceback:", "  [b]line"]


def test_a_reload_begins_the_live_view_again(screen: Screen, clock: Clock) -> None:
    with screen.display:
        screen.display.ready(URL, "/")
        screen.display.reloading(["main.py"])
        clock.advance(2)
        assert "main:app" in screen.view()
        screen.display.ready(URL, "/")
        assert "is ready in 2.00 s" in screen.written()


def test_stopping_ends_the_live_view(screen: Screen) -> None:
    with screen.display:
        screen.display.stopping()
        screen.written()
    assert screen.written() == "", "nothing is drawn any more"
