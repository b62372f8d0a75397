"""A proxy's process: routes, routers, listener."""

import asyncio
import gc
import logging
import signal

import msgspec
import uvloop

from salver.engine.base import ProcessContext
from salver.handle.link import ControllerLink
from salver.handle.request_context import request_ids
from salver.handle.routers import Routers
from salver.lib.tasks import Tasks
from salver.proxy.server import ProxyServer
from salver.schema.errors import ProtocolError
from salver.schema.messages import Done, Drain, Message, ProxyReady
from salver.schema.process_payloads import ProxyPayload
from salver.schema.settings import read_settings
from salver.telemetry.logs import LOGGER_NAME, set_up_logging

logger = logging.getLogger(LOGGER_NAME)


def main(payload: bytes, context: ProcessContext) -> None:
    """Run a proxy; the engine calls this in the new process."""
    set_up_logging(read_settings().log_level)
    request_ids.renew()
    uvloop.run(_run(msgspec.msgpack.decode(payload, type=ProxyPayload), context))


async def _run(payload: ProxyPayload, context: ProcessContext) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = Tasks(on_error=_report)
    servers: list[ProxyServer] = []

    async def answer(message: Message) -> Message:
        if not isinstance(message, Drain):
            raise ProtocolError(f"a proxy does not answer {type(message).__name__}")
        for each in servers:
            await each.drain()
        return Done()

    link = ControllerLink(role="proxy", name=context.name, tasks=tasks, on_ask=answer)
    await link.connect(payload.controller_address)
    routers = Routers(link, role="proxy", name=context.name, tasks=tasks)
    server = ProxyServer(link, routers, payload.http, asyncio.get_running_loop())
    servers.append(server)
    await server.start(context.listeners[payload.listener])
    link.tell(ProxyReady())
    gc.freeze()
    await stop.wait()
    server.close()
    routers.close()
    link.close()
    await tasks.close()


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
