"""A replica's process: load the user's code, construct it, report ready, serve until told to stop."""

import asyncio
import logging
import random
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
from salver.replica.health import HealthChecks
from salver.replica.reporting import Reporting
from salver.replica.server import ReplicaServer
from salver.replica.user_code import UserCode, resolve
from salver.replica.watchdog import BEAT_S, REPORT_EVERY_S, Watchdog
from salver.runtime.context import (
    ReplicaContext,
    get_replica_context,
    set_max_ongoing_requests,
    set_replica_context,
    set_replica_tasks,
)
from salver.runtime.models import models_here, unload_models
from salver.schema.errors import ProtocolError, SalverError
from salver.schema.messages import (
    Done,
    Drain,
    Message,
    Ranked,
    Reconfigure,
    ReplicaFailed,
    ReplicaHealth,
    ReplicaJoined,
    ReplicaReady,
)
from salver.schema.process_payloads import ReplicaPayload
from salver.schema.settings import read_settings
from salver.telemetry.logs import LOGGER_NAME, set_up_logging
from salver.transport.codec import loads
from salver.transport.sockets import listen, unix_address

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
        self._user_config = payload.user_config
        self._rank: asyncio.Future[Ranked]
        self._reconfiguring = asyncio.Lock()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._rank = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        # For user code that calls `asyncio.to_thread`: sized by what the replica may use, not by what the machine has.
        loop.set_default_executor(ThreadPoolExecutor(min(32, max(1, ceil(self._payload.num_cpus)) + 4)))
        link = ControllerLink(
            role="replica",
            name=self._context.name,
            tasks=self._tasks,
            on_ask=self._answer_controller,
            on_back=lambda: self._tell_news(link),
        )
        await link.connect(self._payload.controller_address)
        place = Place(self._context.node_id)
        routers = Routers(link, role="replica", name=self._context.name, tasks=self._tasks, place=place)
        app_name = self._payload.replica.deployment_id.app_name
        set_session(Session(loop, link, routers, self._payload.controller_address, app_name))
        try:
            self._announce(link, self._joined)
            user_code = await self._construct(await self._rank)
            asgi = await AsgiServing.start(user_code.instance, self._tasks)
            reporting = Reporting(self._payload, user_code, models_here(), link.tell, self._tasks)
            self._reporting = reporting
            await reporting.record_metadata()
            await user_code.reconfigure(self._user_config, get_replica_context().rank, serves=False)
            checks = self._health_checks(user_code, link)
            await checks.check()
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
            failure = ReplicaFailed(self._payload.replica, user_traceback(error))
            self._announce(link, lambda: failure)
            await self._stop.wait()
            return
        reporting.start(MonotonicClock())
        await self._serve(user_code, asgi, checks, link)
        reporting.close()
        await self._finalize(user_code, asgi)
        routers.close()
        link.close()
        await self._tasks.close()

    def _end(self) -> None:
        self._stop.set()
        # Who is not wanted any more may never be told a rank.
        self._rank.cancel()

    async def _construct(self, ranked: Ranked) -> UserCode:
        payload = self._payload
        context = ReplicaContext(payload.replica, None, payload.code_version, ranked.rank, ranked.world_size)
        set_replica_context(context)
        set_max_ongoing_requests(payload.max_ongoing_requests)
        set_replica_tasks(self._tasks, asyncio.get_running_loop())
        user_code = UserCode(resolve(payload.code), max_threads=payload.max_ongoing_requests)
        args, kwargs = loads(payload.arguments)
        await user_code.construct(args, kwargs)
        set_replica_context(replace(get_replica_context(), servable_object=user_code.instance))
        return user_code

    def _health_checks(self, user_code: UserCode, link: ControllerLink) -> HealthChecks:
        payload = self._payload

        def tell(failures: int, reason: str) -> None:
            if failures:
                logger.warning("%s: health check failed (%d in a row)\n%s", self._context.name, failures, reason)
            link.tell(ReplicaHealth(replica=payload.replica, failures=failures, reason=reason))

        def on_held(held_s: float, where: str) -> None:
            logger.warning("%s: user code has held the event loop for %.0f s\n%s", self._context.name, held_s, where)
            self._tell_apart(
                ReplicaHealth(replica=payload.replica, failures=checks.failures, reason=where, loop_held_s=held_s)
            )

        # A hold is noticed by a late beat, and must be noticed in checks that may take little time.
        watchdog = Watchdog(on_held, beat_s=min(BEAT_S, payload.health_check_timeout_s / 10))
        checks = HealthChecks(
            user_code.check_health,
            period_s=payload.health_check_period_s,
            timeout_s=payload.health_check_timeout_s,
            held_s=watchdog.held_s,
            tell=tell,
        )
        return checks

    async def _serve(
        self, user_code: UserCode, asgi: AsgiServing | None, checks: HealthChecks, link: ControllerLink
    ) -> None:
        self._server = server = ReplicaServer(
            user_code,
            app_name=self._payload.replica.deployment_id.app_name,
            max_ongoing_requests=self._payload.max_ongoing_requests,
            expose_tracebacks=self._payload.expose_tracebacks,
        )
        server.asgi = asgi
        address = unix_address(self._context.socket_path)
        listener = await listen(address, server.accept)

        def ready() -> ReplicaReady:
            return ReplicaReady(self._payload.replica, address, server.admission.closed, get_replica_context().rank)

        self._announce(link, ready)
        checking = self._tasks.start(checks.run(MonotonicClock(), random.Random()), name="health checks")
        await self._stop.wait()
        checking.cancel()
        listener.close()
        server.close()

    def _joined(self) -> ReplicaJoined:
        told = self._rank.done() and not self._rank.cancelled()
        return ReplicaJoined(self._payload.replica, self._rank.result().rank if told else None)

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
                await self._be_ranked(message)
            case Reconfigure() if self._server is not None:
                self._server.change_limit(message.max_ongoing_requests)
                set_max_ongoing_requests(message.max_ongoing_requests)
                if message.user_config_changed:
                    self._user_config = message.user_config
                    await self._reconfigure(self._server.user_code)
            case _:
                raise ProtocolError(f"a replica does not answer {type(message).__name__}")
        return Done()

    async def _be_ranked(self, message: Ranked) -> None:
        if not self._rank.done():
            self._rank.set_result(message)
            return
        context = get_replica_context()
        set_replica_context(replace(context, rank=message.rank, world_size=message.world_size))
        if self._server is not None and message.rank != context.rank and self._server.user_code.takes_rank:
            await self._reconfigure(self._server.user_code)

    async def _reconfigure(self, user_code: UserCode) -> None:
        """Call the user's `reconfigure` with what holds now; one call at a time.

        Raises:
            SalverError: It raised; the message is its traceback.
        """
        async with self._reconfiguring:
            try:
                await user_code.reconfigure(self._user_config, get_replica_context().rank, serves=True)
            except Exception as error:
                raise SalverError(user_traceback(error)) from error

    def _tell_apart(self, message: ReplicaHealth) -> None:
        """Tell the controller from a thread, on a line of its own, while the loop of the usual one is held."""

        async def tell() -> None:
            link = ControllerLink(role="replica", name=self._context.name, tasks=Tasks(on_error=_report))
            await link.connect(self._payload.controller_address)
            await link.ask(message, Done)
            link.close()

        # Where there is no controller now, the next one asks for no history.
        with suppress(SalverError, OSError, TimeoutError):
            asyncio.run(asyncio.wait_for(tell(), REPORT_EVERY_S))


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
