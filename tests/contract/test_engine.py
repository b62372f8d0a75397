"""What every engine promises: the fake one and the local one, by the same tests."""

import asyncio
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from salver.engine.base import CPU, GPU, Engine, Exit, ProcessSpec
from salver.engine.fake import FakeEngine
from salver.schema.application import Preload
from salver.schema.errors import ResourcesUnavailable, StartFailed
from salver.schema.messages import Output
from tests.agents import ROOT, running_agent, short_dir
from tests.contract.programs import FAKES, LINES, MODULE, entry
from tests.waiting import wait_until

DISK = "disk"
TOTAL = {CPU: 4.0, GPU: 4.0, DISK: 1.0}
USERS_CODE = Preload(working_dir=str(ROOT), search_path=(str(ROOT),), modules=(MODULE,))
BROKEN_MODULE = "tests.contract.raises_at_import"
BROKEN_CODE = Preload(working_dir=str(ROOT), search_path=(str(ROOT),), modules=(BROKEN_MODULE,))
TRACEBACK = 'Traceback (most recent call last):\n  raise LookupError("no weights")\nLookupError: no weights on purpose'
PRELOADS = pytest.mark.parametrize("preload", [None, USERS_CODE], ids=["salvers-own", "users-code"])


class Bench:
    """An engine, and all that it says about exits.

    Args:
        port: Where its listener "http" listens.
        said: Returns the lines that a process has written so far.
    """

    def __init__(self, engine: Engine, port: int, said: Callable[[str], list[str]]) -> None:
        self.engine = engine
        self.port = port
        self.said = said
        self.exits: list[Exit] = []
        self._numbers = itertools.count()
        engine.on_exit(self.exits.append)

    async def start(self, program: str, payload: bytes = b"", **rest: Any) -> str:
        """Start a program, with user code unless told otherwise; return the name it got."""
        given = {"name": f"{program}-{next(self._numbers)}", "preload": USERS_CODE, **rest}
        return (await self.engine.start(ProcessSpec(entry=entry(program), payload=payload, **given))).name

    async def exit_of(self, name: str) -> Exit:
        """Wait until a process has ended."""
        ended = await wait_until(
            lambda: [each for each in self.exits if each.name == name], within_s=10, what=f"the end of {name}"
        )
        return ended[0]

    async def output_of(self, program: str, payload: bytes = b"", **rest: Any) -> list[str]:
        """Run a program to its end and return its last lines."""
        return (await self.exit_of(await self.start(program, payload, **rest))).last_output.split("\n")

    async def free(self) -> dict[str, float]:
        """Return what the node has free of what these tests count."""
        (node,) = await self.engine.nodes()
        return {name: node.free[name] for name in TOTAL}


OpenBench = Callable[..., Awaitable[Bench]]


async def fake_bench(stack: AsyncExitStack, *, total: Mapping[str, float], strict_cpus: bool) -> Bench:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    engine = FakeEngine(
        {"here": {**total, "memory": 1e9}}, programs=FAKES, strict_cpus=strict_cpus, listeners={"http": listener}
    )
    engine.broken_modules[BROKEN_MODULE] = TRACEBACK
    stack.push_async_callback(engine.close)
    return Bench(engine, listener.getsockname()[1], lambda name: list(engine.running[name].said))


async def local_bench(stack: AsyncExitStack, *, total: Mapping[str, float], strict_cpus: bool) -> Bench:
    custom = {name: amount for name, amount in total.items() if name not in {CPU, GPU}}
    agent = await stack.enter_async_context(
        running_agent(
            stack.enter_context(short_dir()),
            num_cpus=total[CPU],
            num_gpus=total[GPU],
            resources=custom,
            strict_cpus=strict_cpus,
        )
    )
    engine = await agent.engine()
    stack.push_async_callback(engine.close)

    def said(name: str) -> list[str]:
        return [line for each in agent.heard if isinstance(each, Output) and each.source == name for line in each.lines]

    port = agent.first.http_port
    assert port is not None
    return Bench(engine, port, said)


@pytest.fixture(params=[fake_bench, local_bench], ids=["fake", "local"])
async def open_bench(request: pytest.FixtureRequest) -> AsyncIterator[OpenBench]:
    async with AsyncExitStack() as stack:

        async def open_one(*, total: Mapping[str, float] = TOTAL, strict_cpus: bool = False) -> Bench:
            bench: Bench = await request.param(stack, total=total, strict_cpus=strict_cpus)
            return bench

        yield open_one


@pytest.fixture
async def bench(open_bench: OpenBench) -> Bench:
    return await open_bench()


# ── Lives ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@PRELOADS
async def test_payload_name_environment_and_listeners_reach_the_process(bench: Bench, preload: Preload | None) -> None:
    said = await bench.output_of(
        "report", b"FRUIT SHAPE", preload=preload, env={"FRUIT": "pear"}, listeners=("http",), name="reporter"
    )
    assert said == ["reporter", f"listener {bench.port}", "FRUIT=pear", "SHAPE=None"]


async def test_only_listeners_that_were_asked_for_are_inherited(bench: Bench) -> None:
    assert "listener None" in await bench.output_of("report")


async def test_an_unknown_listener_fails_the_start(bench: Bench) -> None:
    with pytest.raises(StartFailed, match="no listener named smtp"):
        await bench.start("wait", listeners=("smtp",), resources={DISK: 1})
    assert await bench.free() == TOTAL


@PRELOADS
@pytest.mark.parametrize("code", [0, 3])
async def test_exit_codes_are_reported(bench: Bench, preload: Preload | None, code: int) -> None:
    ended = await bench.exit_of(await bench.start("leave", b"%d" % code, preload=preload))
    assert (ended.code, ended.signal) == (code, None)


async def test_an_exception_ends_a_process_with_code_1_and_its_traceback(bench: Bench) -> None:
    ended = await bench.exit_of(await bench.start("crash"))
    assert (ended.code, ended.signal) == (1, None)
    assert ended.last_output.startswith("Traceback (most recent call last):")
    assert ended.last_output.endswith("ValueError: on purpose")


async def test_the_last_lines_of_output_come_with_the_exit(bench: Bench) -> None:
    said = await bench.output_of("talk")
    assert 10 < len(said) <= LINES
    assert said == [f"line {number}" for number in range(LINES)][-len(said) :]


async def test_stopping_is_a_signal_that_a_process_may_handle(bench: Bench) -> None:
    name = await bench.start("stop_politely")
    await wait_until(lambda: bench.said(name), within_s=10, what="its signal handler")
    await bench.engine.signal(name)
    ended = await bench.exit_of(name)
    assert (ended.code, ended.signal) == (7, None)


async def test_stopping_ends_a_process_that_does_not_handle_it(bench: Bench) -> None:
    name = await bench.start("wait")
    await bench.engine.signal(name)
    ended = await bench.exit_of(name)
    assert (ended.code, ended.signal) == (None, signal.SIGTERM)
    assert str(ended) == f"{name} was killed by SIGTERM"


async def test_killing_cannot_be_handled(bench: Bench) -> None:
    name = await bench.start("stop_politely")
    await wait_until(lambda: bench.said(name), within_s=10, what="its signal handler")
    await bench.engine.signal(name, kill=True)
    ended = await bench.exit_of(name)
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)


async def test_each_exit_is_reported_once(bench: Bench) -> None:
    names = await asyncio.gather(*(bench.start("leave", b"%d" % code) for code in range(5)))
    for name in names:
        await bench.engine.signal(name, kill=True)
    for name in names:
        await bench.exit_of(name)
    marker = await bench.start("leave", b"0")
    await bench.exit_of(marker)
    assert sorted(each.name for each in bench.exits) == sorted([*names, marker])


async def test_no_exit_is_reported_before_its_start_has_returned(bench: Bench) -> None:
    began: set[str] = set()
    early: list[str] = []
    bench.engine.on_exit(lambda exit_: None if exit_.name in began else early.append(exit_.name))
    for _ in range(10):
        began.add(await bench.start("leave", b"0"))
    for name in began:
        await bench.exit_of(name)
    assert early == []


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_signalling_an_unknown_name_is_no_error(bench: Bench, kill: bool) -> None:
    await bench.engine.signal("nobody", kill=kill)


async def test_a_name_is_unique_among_the_living_and_free_again_after(bench: Bench) -> None:
    await bench.start("wait", name="solo")
    with pytest.raises(StartFailed, match="solo runs already"):
        await bench.start("wait", name="solo")
    await bench.engine.signal("solo", kill=True)
    await bench.exit_of("solo")
    bench.exits.clear()
    await bench.start("leave", b"4", name="solo")
    assert (await bench.exit_of("solo")).code == 4


async def test_many_processes_start_at_once(bench: Bench) -> None:
    names = await asyncio.gather(*(bench.start("leave", b"%d" % number) for number in range(12)))
    assert [(await bench.exit_of(name)).code for name in names] == list(range(12))


# ── Preloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failing_preload_gives_the_users_traceback(bench: Bench) -> None:
    with pytest.raises(StartFailed) as caught:
        await bench.start("wait", preload=BROKEN_CODE, resources={GPU: 1})
    assert str(caught.value).startswith("Traceback (most recent call last):")
    assert 'raise LookupError("no weights' in str(caught.value)
    assert str(caught.value).endswith("LookupError: no weights on purpose")


async def test_a_failed_start_leaves_nothing_reserved_and_reports_no_exit(bench: Bench) -> None:
    with pytest.raises(StartFailed):
        await bench.start("wait", name="again", preload=BROKEN_CODE, resources={GPU: 1, DISK: 1})
    assert await bench.free() == TOTAL
    await bench.start("leave", b"0", name="again", resources={DISK: 1})
    await bench.exit_of("again")
    assert len(bench.exits) == 1


async def test_a_preload_can_be_released_at_any_time(bench: Bench) -> None:
    await bench.engine.release(BROKEN_CODE)
    name = await bench.start("wait")
    await bench.engine.release(USERS_CODE)
    await bench.engine.release(USERS_CODE)
    other = await bench.start("leave", b"6")
    assert (await bench.exit_of(other)).code == 6
    await bench.engine.signal(name)
    assert (await bench.exit_of(name)).signal == signal.SIGTERM


# ── Resources ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_resources_are_taken_while_a_process_lives_and_free_when_its_exit_is_reported(bench: Bench) -> None:
    name = await bench.start("wait", resources={CPU: 1, GPU: 2, DISK: 0.5})
    assert await bench.free() == {CPU: 3.0, GPU: 2.0, DISK: 0.5}
    await bench.engine.signal(name)
    await bench.exit_of(name)
    assert await bench.free() == TOTAL


@pytest.mark.parametrize("wanted", [{DISK: 0.6}, {GPU: 5}, {"unheard of": 1}], ids=str)
async def test_what_is_not_free_is_refused_and_nothing_is_reserved(bench: Bench, wanted: dict[str, float]) -> None:
    await bench.start("wait", resources={DISK: 0.5})
    before = await bench.free()
    with pytest.raises(ResourcesUnavailable):
        await bench.start("wait", resources=wanted)
    assert await bench.free() == before


async def test_resources_are_never_promised_twice_to_starts_at_the_same_time(bench: Bench) -> None:
    starts = [bench.start("wait", resources={GPU: 1}) for _ in range(7)]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert sum(isinstance(each, ResourcesUnavailable) for each in outcomes) == 3
    assert await bench.free() == {**TOTAL, GPU: 0.0}


async def test_cpus_may_be_overcommitted(bench: Bench) -> None:
    await bench.start("wait", resources={CPU: 6})
    assert await bench.free() == {**TOTAL, CPU: -2.0}


async def test_strict_cpus_are_not_overcommitted(open_bench: OpenBench) -> None:
    bench = await open_bench(strict_cpus=True)
    await bench.start("wait", resources={CPU: 4})
    with pytest.raises(ResourcesUnavailable, match="CPU"):
        await bench.start("wait", resources={CPU: 0.5})


async def test_gpus_are_disjoint_and_shown_in_the_environment(bench: Bench) -> None:
    for amount in (1, 2, 1):
        await bench.start("wait", resources={GPU: amount})
    assert await bench.free() == {**TOTAL, GPU: 0.0}
    await bench.engine.signal("wait-1")
    await bench.exit_of("wait-1")
    said = await bench.output_of("report", b"CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES", resources={GPU: 2})
    assert said[2:] == ["CUDA_VISIBLE_DEVICES=1,2", "HIP_VISIBLE_DEVICES=1,2"]


async def test_user_code_without_gpus_sees_none(bench: Bench) -> None:
    assert "CUDA_VISIBLE_DEVICES=" in await bench.output_of("report", b"CUDA_VISIBLE_DEVICES")


async def test_fractions_of_gpus_are_packed(bench: Bench) -> None:
    seen = [await bench.start("wait", resources={GPU: 0.5}) for _ in range(3)]
    # Two share the first GPU, so the last of them and two whole ones still fit.
    said = await bench.output_of("report", b"CUDA_VISIBLE_DEVICES", resources={GPU: 0.5})
    assert said[2:] == ["CUDA_VISIBLE_DEVICES=1"]
    said = await bench.output_of("report", b"CUDA_VISIBLE_DEVICES", resources={GPU: 2})
    assert said[2:] == ["CUDA_VISIBLE_DEVICES=2,3"]
    assert len(seen) == 3


async def test_nodes_tell_what_they_have(bench: Bench) -> None:
    (node,) = await bench.engine.nodes()
    assert {name: node.total[name] for name in TOTAL} == TOTAL
    assert node.total["memory"] > 0
    assert node.node_id


async def test_the_living_are_told_with_the_notes_that_they_were_started_with(bench: Bench) -> None:
    stays = await bench.start("wait", note=b"about it")
    ends = await bench.start("wait")
    assert {each.name: each.note for each in await bench.engine.processes()} == {stays: b"about it", ends: b""}
    await bench.engine.signal(ends, kill=True)
    await bench.exit_of(ends)
    (living,) = await bench.engine.processes()
    (node,) = await bench.engine.nodes()
    assert (living.name, living.node_id) == (stays, node.node_id)
    assert living.pid > 0


async def test_a_closed_engine_says_nothing_more(bench: Bench) -> None:
    await bench.start("wait")
    await bench.engine.close()
    await wait_until(lambda: True, within_s=1, what="a turn of the loop")
    assert bench.exits == []
