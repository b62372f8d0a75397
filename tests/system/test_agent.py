"""An agent and its driver: how it starts, how it fails, how it ends."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from salver.engine import instances
from salver.engine.base import ProcessSpec
from salver.schema.errors import StartFailed
from salver.schema.http import HTTPOptions
from salver.schema.messages import Done, InstanceEnded, Notice, Output, StopInstance
from salver.transport.peer import Peer
from salver.transport.sockets import dial, unix_address
from tests.agents import Agent, running_agent, short_dir
from tests.contract.programs import entry
from tests.waiting import wait_until

WITHIN_S = 5.0


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    with short_dir() as path:
        yield path / "run"


async def gone(agent: Agent) -> None:
    """Wait until an agent has left nothing."""
    await wait_until(lambda: agent.process.poll() is not None, within_s=WITHIN_S, what="the agent's end")
    assert not agent.path.exists()


async def test_stopping_is_answered_when_everything_is_gone(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        started = await engine.start(ProcessSpec(name="one", entry=entry("wait")))
        await agent.line.ask(StopInstance(), Done)
        assert not agent.path.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(started.pid, 0)
        await gone(agent)
        assert agent.process.returncode == 0


async def test_nothing_starts_any_more_while_it_ends(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        await engine.start(ProcessSpec(name="one", entry=entry("wait")))
        agent.process.terminate()
        await agent.line.ask(StopInstance(), Done)
        with pytest.raises(StartFailed):
            await engine.start(ProcessSpec(name="two", entry=entry("wait")))


async def test_a_detached_agent_outlives_its_driver_and_anyone_of_the_owners_may_stop_it(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir, attached=False) as agent:
        engine = await agent.engine()
        agent.line.close()
        await agent.gone.wait()
        started = await engine.start(ProcessSpec(name="one", entry=entry("wait")))
        os.kill(started.pid, 0)
        stranger = Peer(agent, role="driver", name="another", tasks=agent.tasks)
        await dial(unix_address(instances.socket_path(str(agent.path), "agent")), stranger)
        await stranger.ask(StopInstance(), Done)
        await gone(agent)


async def test_an_attached_agent_notices_its_drivers_end_by_the_line(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        agent.line.close()
        await gone(agent)


async def test_a_port_in_use_is_told_with_its_holder(runtime_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=rf"Port {port} on 127.0.0.1 is in use by \S+ \(pid {os.getpid()}\)"):
            async with running_agent(runtime_dir, http=HTTPOptions(port=port)):
                pass
    assert not runtime_dir.exists()


async def test_a_host_that_is_not_ours_is_told(runtime_dir: Path) -> None:
    with pytest.raises(AssertionError, match=r"Cannot listen on 192\.0\.2\.1:8000: .*--host"):
        async with running_agent(runtime_dir, http=HTTPOptions(host="192.0.2.1")):
            pass


async def test_a_directory_that_cannot_be_made_is_told(runtime_dir: Path) -> None:
    runtime_dir.mkdir()
    (runtime_dir / "file").touch()
    with pytest.raises(AssertionError, match="Not a directory"):
        async with running_agent(runtime_dir, instance_dir=str(runtime_dir / "file" / "below")):
            pass


async def test_the_controllers_death_ends_the_run_and_says_why(runtime_dir: Path) -> None:
    agent = Agent(runtime_dir, controller_entry=entry("crash"))
    with pytest.raises(AssertionError, match="ended before it was ready"):
        await agent.ready()
    (ended,) = [each for each in agent.heard if isinstance(each, InstanceEnded)]
    assert ended.reason.startswith("The controller exited with code 1; the run ends.\nTraceback")
    assert ended.reason.endswith("ValueError: on purpose")
    await gone(agent)
    await agent.tasks.close()


async def test_a_driver_that_does_not_read_holds_up_nobody_and_learns_what_it_missed(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        exits: list[str] = []
        engine.on_exit(lambda exit_: exits.append(exit_.name))
        agent.stall()
        for number in range(3):
            await engine.start(ProcessSpec(name=f"flood-{number}", entry=entry("flood")))
        await wait_until(lambda: len(exits) == 3, within_s=20, what="the end of all writers")
        agent.go_on()
        await engine.start(ProcessSpec(name="talk", entry=entry("talk")))
        await wait_until(
            lambda: [each for each in agent.heard if isinstance(each, Notice) and "left out" in each.text],
            within_s=WITHIN_S,
            what="word of what was left out",
        )


async def test_overcommitted_cpus_are_said_once(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir, num_cpus=1) as agent:
        engine = await agent.engine()
        for number in range(3):
            await engine.start(ProcessSpec(name=f"p{number}", entry=entry("wait"), resources={"CPU": 1}))
        (notice,) = [each.text for each in agent.heard if isinstance(each, Notice)]
        assert notice.startswith("Replicas ask for 2 CPUs and this machine has 1: they share them.")


async def test_output_comes_line_by_line_whatever_it_is(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        engine.on_exit(lambda exit_: ended.set_result(exit_.last_output))
        await engine.start(ProcessSpec(name="odd", entry=entry("write_oddly")))
        last = await asyncio.wait_for(ended, WITHIN_S)
        lines = [line for each in agent.heard if isinstance(each, Output) for line in each.lines]
        assert lines[:2] == ["carriage return", "\ufffd no text"]
        assert "".join(lines[2:]) == "x" * 100_000 + "no newline", "a line that is too long is cut, not lost"
        assert last.endswith("no newline")


async def test_what_users_code_forked_and_sent_away_ends_too(runtime_dir: Path) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        engine.on_exit(lambda exit_: ended.set_result(exit_.last_output))
        await engine.start(ProcessSpec(name="one", entry=entry("daemonize")))
        daemon = psutil.Process(int(await asyncio.wait_for(ended, WITHIN_S)))
        assert daemon.ppid() == agent.process.pid
        await agent.line.ask(StopInstance(), Done)
        assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_all_at_once_ends_the_run_in_good_order(runtime_dir: Path, number: int) -> None:
    async with running_agent(runtime_dir) as agent:
        engine = await agent.engine()
        started = await engine.start(ProcessSpec(name="one", entry=entry("wait")))
        os.killpg(agent.process.pid, number)
        os.kill(started.pid, number)
        await gone(agent)
        assert agent.process.returncode == 0
