"""The thread of an instance: what Ctrl-C leaves behind while it starts and while it ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Self

import pytest

from salver.api import driver as driver_module
from salver.api.driver import Driver, print_report
from salver.api.instance import Declared
from salver.handle.session import find_session
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.messages import InstanceEnded, Notice, Output


class FakeSession:
    """Stands for a session that was not closed."""

    closed = False


class FakeInstance:
    """Is launched and stopped in as many steps as a real one; each is written down."""

    is_guest = False
    steps: list[str]
    on_launch: str
    on_stop: str
    ctrl_c: threading.Event

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
                cls.ctrl_c.set()
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
            self.ctrl_c.set()
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
    """Put a fake where processes would be started."""
    FakeInstance.steps, FakeInstance.on_launch, FakeInstance.on_stop = [], "", ""
    FakeInstance.ctrl_c = threading.Event()
    monkeypatch.setattr(driver_module, "Instance", FakeInstance)
    yield FakeInstance
    assert [thread.name for thread in threading.enumerate() if thread.name == "salver"] == []


@pytest.fixture
def interrupt_the_next_wait(instance: type[FakeInstance], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes Ctrl-C interrupt the next wait for the thread: when the instance says so, and never earlier."""
    wait = Future.result

    def be_interrupted(future: Future[Any], timeout: float | None = None) -> Any:
        monkeypatch.setattr(Future, "result", wait)
        assert instance.ctrl_c.wait(timeout=5)
        raise KeyboardInterrupt

    return lambda: monkeypatch.setattr(Future, "result", be_interrupted)


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


def test_ctrl_c_while_it_starts_returns_when_nothing_is_left_of_it(
    instance: type[FakeInstance], interrupt_the_next_wait: Callable[[], None]
) -> None:
    instance.on_launch = "interrupted"
    interrupt_the_next_wait()
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


def test_ctrl_c_while_it_stops_does_not_wait_for_requests_that_run(
    instance: type[FakeInstance], interrupt_the_next_wait: Callable[[], None]
) -> None:
    driver = launch()
    instance.on_stop = "interrupted"
    interrupt_the_next_wait()
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
