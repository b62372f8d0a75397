"""The controller dies: nobody who is served notices, and its successor takes over what lives."""

import subprocess
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.system.serving import Place, Run, get
from tests.waiting import wait_until_sync

APP = """
    import asyncio, os, pathlib
    import salver as serve

    @serve.deployment
    class Inner:
        def pid(self) -> int:
            return os.getpid()

    @serve.deployment(num_replicas=2)
    class App:
        def __init__(self, inner: serve.DeploymentHandle) -> None:
            self.inner = inner

        async def __call__(self, request) -> list[int]:
            if request.url.path == "/slow":
                pathlib.Path("began").touch()
                while not pathlib.Path("go").exists():
                    await asyncio.sleep(0.01)
            return [os.getpid(), await self.inner.pid.remote()]

    app = App.bind(Inner.bind())
"""

BACK_WITHIN_S = 10.0


def the(run: Run, name: str) -> psutil.Process:
    [process] = run.named(name)
    return process


def kill_controller(run: Run) -> None:
    """Kill the controller, and wait for the next one."""
    controller = the(run, "controller")
    controller.kill()
    wait_until_sync(lambda: successor(run, controller), within_s=BACK_WITHIN_S, what="another controller")


def successor(run: Run, dead: psutil.Process) -> bool:
    controllers = run.named("controller")
    return bool(controllers) and controllers[0].pid != dead.pid


def replicas_of(url: str) -> set[int]:
    return {pid for _ in range(40) for pid in get(url).json()}


class Clients:
    """Clients that ask without a pause, and count the answers."""

    def __init__(self, url: str, number: int = 4) -> None:
        self.answers: Counter[int | str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(number)]

    def __enter__(self) -> "Clients":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _ask(self, url: str) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                try:
                    self.answers[client.get(url).status_code] += 1
                except httpx.HTTPError as error:
                    self.answers[repr(error)] += 1

    def wait_for_more(self, count: int = 50) -> None:
        before = self.answers.total()
        wait_until_sync(lambda: self.answers.total() >= before + count, within_s=20, what="more answers")


def test_no_request_is_lost_and_no_replica_changes_however_often_the_controller_dies(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        url = run.url()
        before = replicas_of(url)
        assert len(before) == 3
        proxy = the(run, "proxy").pid
        with Clients(url) as clients:
            for _ in range(3):
                clients.wait_for_more()
                kill_controller(run)
                clients.wait_for_more()
        assert set(clients.answers) == {200}
        assert replicas_of(url) == before
        assert the(run, "proxy").pid == proxy


def test_its_successor_replaces_what_dies_afterwards(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        url = run.url()
        before = replicas_of(url)
        kill_controller(run)
        for victim in (the(run, "Inner"), run.named("App")[0], the(run, "proxy")):
            victim.kill()
        wait_until_sync(lambda: has_all(url, before), within_s=BACK_WITHIN_S, what="two others")


def has_all(url: str, before: set[int]) -> bool:
    try:
        now = replicas_of(url)
    except (httpx.HTTPError, ValueError, TypeError):
        return False
    return len(now) == 3 and len(now - before) == 2


@pytest.mark.parametrize("names", [("Inner",), ("App", "Inner"), ("proxy",), ("App", "App", "Inner", "proxy")])
def test_what_dies_together_with_it_is_replaced(place: Place, names: tuple[str, ...]) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        url = run.url()
        before = replicas_of(url)
        victims = [the(run, "controller")]
        for name in names:
            victims.append(next(each for each in run.named(name) if each not in victims))
        for each in victims:
            each.kill()
        lost = len(set(names) & {"App", "Inner"}) + (names.count("App") > 1)
        wait_until_sync(
            lambda: answers(url) and len(replicas_of(url) - before) == lost, within_s=BACK_WITHIN_S, what="the others"
        )


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_request_that_ran_meanwhile_is_answered_and_ctrl_c_ends_all(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        url = run.url()
        with Slow(url) as slow:
            wait_until_sync((place.path / "began").exists, within_s=10, what="the request to run")
            kill_controller(run)
            (place.path / "go").touch()
        assert slow.status == 200
        run.signal(2)
        assert run.exit_code() == 0
    assert place.leftovers() == []


class Slow:
    """One slow request in a thread.

    Attributes:
        status: Of its answer.
    """

    def __init__(self, url: str) -> None:
        self.status = 0
        self._thread = threading.Thread(target=self._ask, args=(url,))

    def __enter__(self) -> "Slow":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _ask(self, url: str) -> None:
        self.status = get(f"{url}/slow").status_code


def test_one_that_dies_again_and_again_ends_the_run(place: Place) -> None:
    place.write("app.py", APP)
    with place.run("app:app") as run:
        run.url()
        killed: set[int] = set()
        deadline = time.monotonic() + 30
        while run.family() and time.monotonic() < deadline:
            for each in run.named("controller"):
                if each.pid not in killed:
                    killed.add(each.pid)
                    each.kill()
        assert run.exit_code() == 1
        assert "the run ends" in run.output
        assert len(killed) == 5
    assert place.leftovers() == []


def test_a_driver_goes_on_with_the_next_controller(place: Place) -> None:
    place.write(
        "script.py",
        """
        import salver as serve

        @serve.deployment
        def hello() -> str:
            return "hello"

        if __name__ == "__main__":
            serve.start(http_options={"port": 0})
            handle = serve.run(hello.bind(), name="one", route_prefix=None)
            print("runs", flush=True)
            input()
            print(handle.remote().result())
            print(sorted(serve.status().applications))
            print(serve.run(hello.bind(), name="two", route_prefix=None).remote().result())
            print(sorted(serve.status().applications))
            serve.delete("one")
            print(sorted(serve.status().applications))
            serve.shutdown()
        """,
    )
    with place.start("script.py", stdin=subprocess.PIPE) as run:
        run.wait_for("runs")
        the(run, "controller").kill()
        assert run.process.stdin is not None
        run.process.stdin.write("\n")
        run.process.stdin.flush()
        assert run.exit_code() == 0, run.output
        lines = [line for line in run.output.splitlines() if line[:1] in "h["]
        assert lines == ["hello", "['one']", "hello", "['one', 'two']", "['two']"]
