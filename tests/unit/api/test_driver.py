"""The thread of an instance: what Ctrl-C leaves behind while it starts and while it ends."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest

from salver.api import driver as driver_module
from salver.api.driver import Driver, print_report
from salver.api.instance import Declared
from salver.handle.session import find_session
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import InstanceEnded, Notice, Output


async def press_ctrl_c() -> None:
    """Interrupt the main thread as soon as it waits for this one."""
    main = threading.main_thread().ident
    assert main is not None
    while sys._current_frames()[main].f_code.co_name != "wait":  # noqa: ASYNC110 - it tells nobody that it waits
        await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGINT)


class FakeSession:
    """Stands for a session that was not closed."""

    closed = False


class FakeInstance:
    """Is launched and stopped in as many steps as a real one; each is written down."""

    steps: list[str]
    on_launch: str
    on_stop: str

    def __init__(self) -> None:
        self.session = FakeSession()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._hurry = asyncio.Event()

    @classmethod
    async def launch(cls, http: HTTPOptions, on_report: object, machine: Declared) -> Self:
        """Part of Instance."""
        cls.steps.append("launching")
        try:
            if cls.on_launch == "interrupted":
                await press_ctrl_c()
                await asyncio.Event().wait()
            if cls.on_launch == "failing":
                raise SalverError("the port is in use")
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            cls.steps.append("launched in vain")
            raise
        return cls()

    async def stop(self, *, drain: bool = True) -> None:
        """Part of Instance."""
        self.steps.append(f"stopping, drain={drain}")
        if self.on_stop == "interrupted":
            await press_ctrl_c()
            await self._hurry.wait()
        self.steps.append("stopped")
        if not self.ended.done():
            self.ended.set_result("it was stopped")

    async def abandon(self) -> None:
        """Part of Instance."""
        self.steps.append("abandoned")
        self._hurry.set()


@pytest.fixture(autouse=True)
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeInstance]]:
    """Put a fake where processes would be started; Ctrl-C is what it is for a script."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    FakeInstance.steps, FakeInstance.on_launch, FakeInstance.on_stop = [], "", ""
    monkeypatch.setattr(driver_module, "Instance", FakeInstance)
    yield FakeInstance
    signal.signal(signal.SIGINT, former)
    assert [thread.name for thread in threading.enumerate() if thread.name == "salver"] == []


def launch() -> Driver:
    """Start a driver."""
    return Driver.launch(HTTPOptions(), Declared())


def test_a_driver_lives_until_its_instance_is_stopped(instance: type[FakeInstance]) -> None:
    driver = launch()
    session: Any = driver.instance.session
    assert driver.alive
    assert find_session() is session
    driver.stop()
    assert not driver.alive
    assert find_session() is None
    assert instance.steps == ["launching", "stopping, drain=True", "stopped"]
    driver.stop()
    assert len(instance.steps) == 3, "to stop again does nothing"


def test_calls_run_on_the_drivers_thread_and_bring_back_results_and_errors() -> None:
    async def where() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise LookupError("no such thing")

    driver = launch()
    assert driver.call(where()) == "salver"
    with pytest.raises(LookupError, match="no such thing"):
        driver.call(fail())
    driver.stop(drain=False)


def test_a_failed_start_leaves_no_thread_and_says_why(instance: type[FakeInstance]) -> None:
    instance.on_launch = "failing"
    with pytest.raises(SalverError, match="the port is in use"):
        launch()
    assert find_session() is None


def test_ctrl_c_while_it_starts_returns_when_nothing_is_left_of_it(instance: type[FakeInstance]) -> None:
    instance.on_launch = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        launch()
    assert instance.steps == ["launching", "launched in vain"]


def test_ctrl_c_just_after_it_has_started_stops_it(
    instance: type[FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(driver: Driver, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Driver, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch()
    assert instance.steps == ["launching", "stopping, drain=False", "stopped"]


def test_ctrl_c_while_it_stops_does_not_wait_for_requests_that_run(instance: type[FakeInstance]) -> None:
    driver = launch()
    instance.on_stop = "interrupted"
    driver.stop()
    assert instance.steps == ["launching", "stopping, drain=True", "abandoned", "stopped"]


def test_a_forked_process_leaves_its_parents_instance_alone(
    instance: type[FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = launch()
    with monkeypatch.context() as forked:
        forked.setattr(driver_module.os, "getpid", lambda: -1)
        assert not driver.alive
        driver.stop()
    assert instance.steps == ["launching"]
    driver.stop()


def test_reports_are_printed_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Output("Model#1", ("one", "two")))
    print_report(Notice("CPUs are shared."))
    print_report(InstanceEnded("The agent died."))
    assert capsys.readouterr() == ("(Model#1) one\n(Model#1) two\n", "CPUs are shared.\nThe agent died.\n")
