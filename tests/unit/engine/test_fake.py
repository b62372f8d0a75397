"""What the fake engine can do on order, beyond what all engines promise."""

import asyncio
import signal

import pytest

from salver.engine.base import CPU, Exit, ProcessSpec
from salver.engine.fake import FakeEngine
from salver.schema.errors import ResourcesUnavailable, StartFailed


async def turn() -> None:
    """Let the loop deliver what is due."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def spec(name: str, **resources: float) -> ProcessSpec:
    return ProcessSpec(name=name, entry="any:main", resources=resources)


async def test_processes_end_on_order() -> None:
    engine = FakeEngine()
    exits: list[Exit] = []
    engine.on_exit(exits.append)
    for name in ("a", "b"):
        await engine.start(spec(name))
    engine.running["a"].say("goodbye")
    engine.exit("a", 3)
    engine.die("b", signal.SIGSEGV)
    assert exits == [], "nobody hears of an end while it is ordered"
    await turn()
    assert exits == [Exit("a", 3, None, "goodbye"), Exit("b", None, signal.SIGSEGV, "")]
    assert engine.running == {}


async def test_starts_fail_on_order() -> None:
    engine = FakeEngine()

    async def refuse(spec: ProcessSpec) -> None:
        if spec.name == "a":
            raise StartFailed("not today")

    engine.before_start = refuse
    with pytest.raises(StartFailed, match="not today"):
        await engine.start(spec("a", CPU=1))
    await engine.start(spec("b"))
    (node,) = await engine.nodes()
    assert node.free == node.total


async def test_starts_hang_on_order_until_they_are_given_up() -> None:
    engine = FakeEngine()

    async def hang(spec: ProcessSpec) -> None:
        await asyncio.Event().wait()

    engine.before_start = hang
    starting = asyncio.create_task(engine.start(spec("a", CPU=1)))
    await turn()
    await engine.signal("a")
    with pytest.raises(StartFailed, match="a was stopped while it started"):
        await starting
    (node,) = await engine.nodes()
    assert node.free == node.total


async def test_processes_go_where_there_is_room() -> None:
    engine = FakeEngine({"one": {CPU: 1.0}, "two": {CPU: 1.0}}, strict_cpus=True)
    assert [(await engine.start(spec(name, CPU=1))).node_id for name in "ab"] == ["one", "two"]
    with pytest.raises(ResourcesUnavailable):
        await engine.start(spec("c", CPU=1))
    assert [node.free[CPU] for node in await engine.nodes()] == [0.0, 0.0]
