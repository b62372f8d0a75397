"""A replica's process: load the user's code, construct it, report ready, serve until told to stop."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil

import msgspec
import uvloop

from salver.engine.base import ProcessContext
from salver.handle.link import ControllerLink
from salver.handle.policies.locality import Place
from salver.handle.request_context import request_ids
from salver.handle.routers import Routers
from salver.handle.session import Session, set_session
from salver.lib.clock import MonotonicClock
from salver.lib.tasks import Tasks
from salver.lib.tracebacks import user_traceback
from salver.replica.asgi import AsgiServing
from salver.replica.configuration import Configuration
from salver.replica.liveness import Liveness
from salver.replica.reporting import Reporting
from salver.replica.server import ReplicaServer
from salver.replica.user_code import UserCode, resolve
from salver.runtime.context import (
    ReplicaContext,
    get_replica_context,
    set_max_ongoing_requests,
    set_replica_context,
    set_replica_tasks,
)
from salver.runtime.models import models_here, unload_models
from salver.schema.errors import ProtocolError
from salver.schema.messages import Done, Drain, Message, Ranked, Reconfigure, ReplicaFailed, ReplicaJoined, ReplicaReady
from salver.schema.process_payloads import ReplicaPayload
from salver.schema.settings import read_settings
from salver.telemetry.logs import LOGGER_NAME, set_up_logging
from salver.transport.codec import loads

logger = logging.getLogger(LOGGER_NAME)


def main(payload: bytes, context: ProcessContext) -> None:
    """Run a replica; the engine calls this in the new process."""
    set_up_logging(read_settings().log_level)
    request_ids.renew()
    uvloop.run(_Replica(msgspec.msgpack.decode(payload, type=ReplicaPayload), context).run())


class _Replica:
    def __init__(self, payload: ReplicaPayload, context: ProcessContext) -> None:
        self._payload = payload
        self._context = context
        self._tasks = Tasks(on_error=_report)
        self._stop = asyncio.Event()
        self._server: ReplicaServer | None = None
        self._news: Callable[[], Message] | None = None
        """What each new controller is told."""
        self._reporting: Reporting | None = None
        self._configuration = Configuration(payload.user_config)
        self._threads: list[Callable[[], None]] = []
        """What ends the threads of this replica: where it is a thread itself, they do not end with it."""

    async def run(self) -> None:
        try:
            await self._live()
        finally:
            for end in self._threads:
                end()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        self._context.on_stop(self._end)
        # For user code that calls `asyncio.to_thread`: sized by what the replica may use, not by what the machine has.
        loop.set_default_executor(ThreadPoolExecutor(min(32, max(1, ceil(self._payload.num_cpus)) + 4)))
        link, routers = await self._join(loop)
        try:
            self._announce(link, self._joined)
            user_code = await self._construct(await self._configuration.rank())
            asgi = await AsgiServing.start(user_code.instance, self._tasks)
            reporting = Reporting(self._payload, user_code, models_here(), link.tell, self._tasks)
            self._reporting = reporting
            await reporting.record_metadata()
            await self._configuration.begin(user_code)
            liveness = Liveness(self._payload, self._context, user_code, link.tell)
            self._threads.append(liveness.close)
            await liveness.check_first()
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
            self._context.failed(error)
            failure = ReplicaFailed(self._payload.replica, user_traceback(error))
            self._announce(link, lambda: failure)
            await self._stop.wait()
            return
        reporting.start(MonotonicClock())
        await self._serve(user_code, asgi, liveness, link)
        reporting.close()
        await self._finalize(user_code, asgi)
        routers.close()
        link.close()
        await self._tasks.close()

    async def _join(self, loop: asyncio.AbstractEventLoop) -> tuple[ControllerLink, Routers]:
        """Take part in the instance: hear the controller, and call other deployments."""
        context, address = self._context, self._payload.controller_address
        link = ControllerLink(
            role="replica",
            name=context.name,
            tasks=self._tasks,
            on_ask=self._answer_controller,
            on_back=lambda: self._tell_news(link),
            dial=context.dial,
        )
        await link.connect(address)
        place = Place(context.node_id)
        routers = Routers(link, role="replica", name=context.name, tasks=self._tasks, dial=context.dial, place=place)
        app_name = self._payload.replica.deployment_id.app_name
        set_session(Session(loop, link, routers, address, app_name, dial=context.dial))
        return link, routers

    def _end(self) -> None:
        self._stop.set()
        self._configuration.give_up()

    async def _construct(self, ranked: Ranked) -> UserCode:
        payload = self._payload
        context = ReplicaContext(payload.replica, None, payload.code_version, ranked.rank, ranked.world_size)
        set_replica_context(context)
        set_max_ongoing_requests(payload.max_ongoing_requests)
        set_replica_tasks(self._tasks, asyncio.get_running_loop())
        user_code = UserCode(resolve(payload.code), max_threads=payload.max_ongoing_requests)
        self._threads.append(user_code.release_threads)
        args, kwargs = loads(payload.arguments)
        await user_code.construct(args, kwargs)
        set_replica_context(replace(get_replica_context(), servable_object=user_code.instance))
        return user_code

    async def _serve(
        self, user_code: UserCode, asgi: AsgiServing | None, liveness: Liveness, link: ControllerLink
    ) -> None:
        self._server = server = ReplicaServer(
            user_code,
            app_name=self._payload.replica.deployment_id.app_name,
            max_ongoing_requests=self._payload.max_ongoing_requests,
            expose_tracebacks=self._payload.expose_tracebacks,
        )
        server.asgi = asgi
        listener = await self._context.listen(server.accept)
        address = self._context.address

        def ready() -> ReplicaReady:
            return ReplicaReady(self._payload.replica, address, server.admission.closed, get_replica_context().rank)

        self._announce(link, ready)
        liveness.start(self._tasks)
        await self._stop.wait()
        listener.close()
        server.close()

    def _joined(self) -> ReplicaJoined:
        return ReplicaJoined(self._payload.replica, self._configuration.told_rank)

    def _announce(self, link: ControllerLink, news: Callable[[], Message]) -> None:
        self._news = news
        self._tell_news(link)

    def _tell_news(self, link: ControllerLink) -> None:
        if self._reporting is not None:
            self._reporting.repeat()
        if self._news is not None:
            link.tell(self._news())

    async def _finalize(self, user_code: UserCode, asgi: AsgiServing | None) -> None:
        try:
            if asgi is not None:
                await asgi.stop()
            await unload_models()
            await user_code.close()
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            logger.warning("%s: its end raised\n%s", self._context.name, user_traceback(error))

    async def _answer_controller(self, message: Message) -> Message:
        match message:
            case Drain() if self._server is not None:
                await self._server.drain()
            case Ranked():
                await self._configuration.change_rank(message)
            case Reconfigure() if self._server is not None:
                self._server.change_limit(message.max_ongoing_requests)
                set_max_ongoing_requests(message.max_ongoing_requests)
                if message.user_config_changed:
                    await self._configuration.change_user_config(message.user_config)
            case _:
                raise ProtocolError(f"a replica does not answer {type(message).__name__}")
        return Done()


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
