"""The proxy's life as the controller keeps it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from salver.engine.base import ProcessSpec
from salver.schema.errors import StartFailed
from salver.schema.messages import ProxyLeaving, Shutdown
from tests.component.control import Plane, rest


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane() as each:
        yield each


def shown(plane: Plane) -> dict[str, str]:
    """Return the status of each node's proxy."""
    return {node: status.value for node, status in plane.plane.publisher.status().proxies.items()}


async def until_healthy(plane: Plane) -> None:
    await plane.until(lambda: shown(plane) == {"fake": "HEALTHY"}, "a healthy proxy")


async def test_a_proxy_is_started_with_its_listening_socket(plane: Plane) -> None:
    await plane.proxy_starter.start()
    assert plane.engine.running["proxy-1"].spec.listeners == ("http",)
    assert shown(plane) == {"fake": "STARTING"}
    await until_healthy(plane)


async def test_a_proxy_that_dies_is_replaced_at_once(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    plane.engine.die("proxy-1")
    await plane.until(lambda: plane.running() == ["proxy-2"], "another proxy")
    await until_healthy(plane)


async def test_a_proxy_that_dies_young_again_and_again_is_replaced_later_each_time(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    plane.engine.die("proxy-1")
    await plane.until(lambda: "proxy-2" in plane.proxies, "another proxy")
    await rest()
    plane.engine.die("proxy-2")
    await plane.pass_time(0.09)
    assert (plane.running(), shown(plane)) == ([], {"fake": "UNHEALTHY"})
    await plane.pass_time(0.02)
    assert plane.running() == ["proxy-3"]


async def test_a_proxy_that_lived_long_is_replaced_at_once_whatever_came_before(plane: Plane) -> None:
    await plane.proxy_starter.start()
    for number in (1, 2):
        await plane.pass_time(0.1)
        plane.engine.die(f"proxy-{number}")
    await plane.pass_time(10)
    await plane.pass_time(10)
    plane.engine.die("proxy-3")
    await rest()
    assert plane.running() == ["proxy-4"]


async def test_a_proxy_that_cannot_be_started_is_tried_again(plane: Plane) -> None:
    refusals = [StartFailed("no more processes"), StartFailed("no more processes")]

    async def refuse(spec: ProcessSpec) -> None:
        if refusals:
            raise refusals.pop()

    plane.engine.before_start = refuse
    await plane.proxy_starter.start()
    await plane.pass_time(1)
    await until_healthy(plane)
    assert plane.running() == ["proxy-3"]


async def test_a_proxy_that_dies_before_its_start_is_confirmed_is_replaced(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = plane.engine.start

    async def confirm_late(spec: ProcessSpec) -> object:
        started = await start(spec)
        if spec.name == "proxy-1":
            plane.engine.die("proxy-1")
            await rest()
        return started

    monkeypatch.setattr(plane.engine, "start", confirm_late)
    await plane.proxy_starter.start()
    await until_healthy(plane)
    assert plane.running() == ["proxy-2"]


async def test_a_proxy_may_be_ready_before_its_start_is_confirmed(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = plane.engine.start

    async def confirm_late(spec: ProcessSpec) -> object:
        started = await start(spec)
        await plane.until(lambda: spec.name in plane.proxies, "a proxy that is ready")
        await rest()
        assert shown(plane) == {}
        return started

    monkeypatch.setattr(plane.engine, "start", confirm_late)
    await plane.proxy_starter.start()
    assert shown(plane) == {"fake": "HEALTHY"}


async def test_a_drained_proxy_is_not_replaced(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    await plane.ask(Shutdown())
    assert shown(plane) == {"fake": "DRAINED"}
    plane.engine.exit("proxy-1")
    await plane.pass_time(60)
    assert plane.running() == []


async def test_a_proxy_that_dies_while_it_drains_holds_nobody_up(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    proxy = plane.proxies["proxy-1"]
    proxy.hangs = True
    draining = asyncio.ensure_future(plane.proxy_starter.drain(60))
    await proxy.drained.wait()
    assert shown(plane) == {"fake": "DRAINING"}
    proxy.peer.close()
    await draining


async def test_draining_without_proxies_is_over_at_once(plane: Plane) -> None:
    await plane.proxy_starter.drain(60)


async def test_a_proxy_that_is_not_ready_yet_has_nothing_to_drain(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await plane.proxy_starter.drain(60)
    assert not any(each.drained.is_set() for each in plane.proxies.values())


async def test_several_proxies_of_a_node_are_shown_and_replaced_one_by_one() -> None:
    async with Plane(num_proxies=2) as plane:
        await plane.proxy_starter.start()
        await plane.until(lambda: shown(plane) == {"fake#1": "HEALTHY", "fake#2": "HEALTHY"}, "two healthy proxies")
        for _ in range(2):
            # Both live long enough to be replaced at once.
            await plane.pass_time(10)
        plane.engine.die("proxy-2")
        await plane.until(lambda: plane.running() == ["proxy-1", "proxy-3"], "another second proxy")
        await plane.until(lambda: shown(plane) == {"fake#1": "HEALTHY", "fake#2": "HEALTHY"}, "two healthy proxies")
        await plane.ask(Shutdown())
        assert shown(plane) == {"fake#1": "DRAINED", "fake#2": "DRAINED"}


async def test_a_proxy_that_leaves_is_replaced_before_it_is_gone(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    plane.proxies["proxy-1"].peer.tell(ProxyLeaving())
    await plane.until(lambda: plane.running() == ["proxy-1", "proxy-2"], "its successor")
    await until_healthy(plane)
    plane.engine.exit("proxy-1")
    await plane.pass_time(60)
    assert (plane.running(), shown(plane)) == (["proxy-2"], {"fake": "HEALTHY"})


async def test_one_that_leaves_is_waited_for_at_the_end_and_not_replaced_then(plane: Plane) -> None:
    await plane.proxy_starter.start()
    await until_healthy(plane)
    plane.proxies["proxy-1"].peer.tell(ProxyLeaving())
    await plane.until(lambda: "proxy-2" in plane.proxies, "its successor")
    await until_healthy(plane)
    leaving, staying = plane.proxies["proxy-1"], plane.proxies["proxy-2"]
    leaving.hangs = True
    draining = asyncio.ensure_future(plane.proxy_starter.drain(60))
    await leaving.drained.wait()
    await staying.drained.wait()
    staying.peer.tell(ProxyLeaving())
    await rest()
    assert (draining.done(), plane.running()) == (False, ["proxy-1", "proxy-2"])
    leaving.peer.close()
    await draining
