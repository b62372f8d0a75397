"""A proxy's process: routes, routers, listener."""

import asyncio
import gc
import logging
import signal
import sys

import msgspec
import uvloop

from salver.engine.base import ProcessContext
from salver.handle.link import ControllerLink
from salver.handle.policies.locality import Place
from salver.handle.request_context import request_ids
from salver.handle.routers import Routers
from salver.lib.tasks import Tasks
from salver.lib.tls import BadTlsFile
from salver.proxy.server import ProxyServer
from salver.schema.errors import ProtocolError
from salver.schema.messages import Done, Drain, Message, ProxyLeaving, ProxyReady
from salver.schema.process_payloads import ProxyPayload
from salver.schema.settings import read_settings
from salver.telemetry.logs import LOGGER_NAME, set_up_logging

logger = logging.getLogger(LOGGER_NAME)

DRAIN_TIMEOUT_S = 30.0
"""How long a proxy that was sent SIGTERM goes on with requests that it has."""


def main(payload: bytes, context: ProcessContext) -> None:
    """Run a proxy; the engine calls this in the new process."""
    set_up_logging(read_settings().log_level)
    request_ids.renew()
    try:
        uvloop.run(_run(msgspec.msgpack.decode(payload, type=ProxyPayload), context))
    except BadTlsFile as error:
        logger.error("The proxy cannot start. %s", error)
        sys.exit(1)


async def _run(payload: ProxyPayload, context: ProcessContext) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def stop_or_hurry() -> None:
        (hurry if stop.is_set() else stop).set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_or_hurry)
    tasks = Tasks(on_error=_report)
    servers: list[ProxyServer] = []

    async def answer(message: Message) -> Message:
        if not isinstance(message, Drain):
            raise ProtocolError(f"a proxy does not answer {type(message).__name__}")
        for each in servers:
            await each.drain()
        return Done()

    def tell_how_it_is() -> None:
        for each in servers:
            link.tell(ProxyLeaving() if each.draining or stop.is_set() else ProxyReady())

    link = ControllerLink(role="proxy", name=context.name, tasks=tasks, on_ask=answer, on_back=tell_how_it_is)
    await link.connect(payload.controller_address)
    place = Place(context.node_id, prefers_near=True)
    routers = Routers(link, role="proxy", name=context.name, tasks=tasks, place=place)
    server = ProxyServer(link, routers, payload.http, asyncio.get_running_loop())
    await server.start(context.listeners[payload.listener])
    servers.append(server)
    tell_how_it_is()
    gc.freeze()
    await stop.wait()
    if not server.draining:
        link.tell(ProxyLeaving())
        await _finish(server, hurry, tasks)
    server.close()
    routers.close()
    link.close()
    await tasks.close()


async def _finish(server: ProxyServer, hurry: asyncio.Event, tasks: Tasks) -> None:
    """Drain, unless that takes too long or somebody asks again."""
    ends = [tasks.start(server.drain(), name="drain"), tasks.start(hurry.wait(), name="hurry")]
    await asyncio.wait(ends, timeout=DRAIN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    for each in ends:
        each.cancel()


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
