"""Fixtures of these tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from salver.handle.session import set_session
from tests.unit.handle.worlds import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.connect()
    yield world
    set_session(None)
    for end in world.network.ends:
        end.abort()
    await world.tasks.close()
    await asyncio.sleep(0)
    assert world.failed == []
