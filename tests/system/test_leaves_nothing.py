"""However a run ends, nothing of it is left within five seconds."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.system.serving import GONE_WITHIN_S, Place, Run, alive, get
from tests.waiting import wait_until_sync

APP = '''
    import subprocess, tempfile, sys
    import salver as serve

    @serve.deployment(num_replicas=2)
    class Parent:
        """Starts a process of its own, which must go with it."""
        def __init__(self):
            self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        def __call__(self): return str(self.child.pid)

    app = Parent.bind()
'''


def interrupt(run: Run) -> None:
    run.signal(signal.SIGINT)


def terminate(run: Run) -> None:
    run.signal(signal.SIGTERM)


def kill_driver(run: Run) -> None:
    run.signal(signal.SIGKILL)


def kill_agent(run: Run) -> None:
    run.agents()[0].kill()


def kill_driver_and_agent(run: Run) -> None:
    agent = run.agents()[0]
    run.signal(signal.SIGKILL)
    agent.kill()


@pytest.mark.parametrize("end", [interrupt, terminate, kill_driver, kill_agent, kill_driver_and_agent])
def test_nothing_is_left(place: Place, end: Callable[[Run], None]) -> None:
    place.write("family.py", APP)
    segments = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    with place.run("family:app") as run:
        url = run.url()
        child = psutil.Process(int(get(url).text))
        family = [*run.family(), child]
        assert len(family) >= 8, "agent, zygotes, controller, proxy, two replicas and a child"
        end(run)
        wait_until_sync(lambda: not alive(family), within_s=GONE_WITHIN_S, what="an end of all processes")
        wait_until_sync(lambda: not place.leftovers(), within_s=GONE_WITHIN_S, what="an empty runtime directory")
        run.exit_code(GONE_WITHIN_S)
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", urlsplit(url).port or 0))
    assert set(os.listdir("/dev/shm")) <= segments if Path("/dev/shm").is_dir() else True


def test_ctrl_c_finishes_running_requests_and_runs_finalizers(place: Place) -> None:
    place.write(
        "slow.py",
        """
        import asyncio, pathlib
        import salver as serve

        @serve.deployment
        class Slow:
            async def __call__(self):
                pathlib.Path("began").touch()
                while not pathlib.Path("go").exists():
                    await asyncio.sleep(0.01)
                return "finished"
            def __del__(self):
                with open("deleted", "a") as file: file.write("x")

        app = Slow.bind()
        """,
    )
    with place.run("slow:app") as run:
        url = run.url()
        import threading

        answers: list[str] = []
        client = threading.Thread(target=lambda: answers.append(get(url).text))
        client.start()
        wait_until_sync((place.path / "began").exists, within_s=10, what="the request to run")
        run.signal(signal.SIGINT)
        run.wait_for("Stopping")
        assert answers == []
        (place.path / "go").touch()
        assert run.exit_code() == 0
        client.join()
        assert answers == ["finished"]
        assert (place.path / "deleted").read_text() == "x"
    assert place.leftovers() == []


def test_ctrl_c_twice_stops_at_once(place: Place) -> None:
    place.write(
        "stuck.py",
        """
        import asyncio, pathlib
        import salver as serve

        @serve.deployment(graceful_shutdown_timeout_s=1000)
        async def stuck():
            pathlib.Path("began").touch()
            await asyncio.sleep(1000)

        app = stuck.bind()
        """,
    )
    with place.run("stuck:app") as run:
        url = run.url()
        import threading

        import httpx

        answers: list[int] = []

        def ask() -> None:
            # Cut off, or told that its replica was killed: whichever is quicker.
            with contextlib.suppress(httpx.HTTPError):
                answers.append(get(url).status_code)

        client = threading.Thread(target=ask)
        client.start()
        wait_until_sync((place.path / "began").exists, within_s=10, what="the request to run")
        run.signal(signal.SIGINT)
        run.wait_for("Stopping")
        run.signal(signal.SIGINT)
        run.exit_code(GONE_WITHIN_S)
        client.join()
        assert answers in ([], [502], [503])
    assert place.leftovers() == []


def test_two_runs_do_not_disturb_each_other(place: Place) -> None:
    place.write(
        "who.py",
        """
        import salver as serve

        @serve.deployment
        class Who:
            def __init__(self, name): self.name = name
            def __call__(self): return self.name

        def app(args): return Who.bind(args["name"])
        """,
    )
    with place.run("who:app", "name=one") as one, place.run("who:app", "name=two") as two:
        urls = one.url(), two.url()
        assert [get(url).text for url in urls] == ["one", "two"]
        one.signal(signal.SIGINT)
        assert one.exit_code() == 0
        assert get(urls[1]).text == "two"
        two.signal(signal.SIGINT)
        assert two.exit_code() == 0
    assert place.leftovers() == []
