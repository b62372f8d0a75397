"""A replica that serves, for the tests of this room."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from salver.lib.tasks import Tasks
from salver.replica.server import ReplicaServer
from salver.replica.user_code import UserCode
from salver.transport.memory import MemoryNetwork
from tests.unit.replica.callers import Rig, Start
from tests.waiting import wait_until


def all_left(server: ReplicaServer) -> bool:
    """Say whether nobody is connected to a replica and nothing runs there."""
    return not server.callers and not server.admission.taken


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Give what starts a replica; afterwards every request has left it, and nothing died in silence."""
    network = MemoryNetwork()
    servers: list[ReplicaServer] = []
    failed: list[Any] = []
    tasks = Tasks(lambda name, error: failed.append((name, error)))
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))

    async def make(servable: Callable[..., Any], limit: int = 2, expose: bool = False) -> Rig:
        code = UserCode(servable, max_threads=limit)
        await code.construct((), {})
        server = ReplicaServer(
            code,
            app_name="shop",
            max_ongoing_requests=limit,
            expose_tracebacks=expose,
        )
        servers.append(server)
        await network.listen("replica", server.accept)
        return Rig(server, network)

    yield make
    for end in network.ends:
        end.abort()
    for server in servers:
        await wait_until(partial(all_left, server), within_s=5, what="an end of all connections and requests")
        await server.user_code.close()
    await tasks.close()
    assert failed == []
