"""The controller's process: build its parts, wire them, run."""

import asyncio
import logging
import signal

import msgspec

from salver.controller.builds import Builds
from salver.controller.checkpoint import Checkpoint
from salver.controller.controller import Controller
from salver.controller.plane import wired
from salver.controller.proxies import Proxies
from salver.engine.base import ProcessContext
from salver.engine.local import LocalEngine
from salver.engine.store import SqliteStore
from salver.lib.clock import MonotonicClock
from salver.lib.tasks import Tasks
from salver.schema.process_payloads import ControllerPayload, ProxyPayload
from salver.schema.settings import read_settings
from salver.telemetry.logs import LOGGER_NAME, set_up_logging
from salver.transport.peer import Peer
from salver.transport.sockets import listen, unix_address

logger = logging.getLogger(LOGGER_NAME)
CHECKPOINT_FILE = "checkpoint.sqlite"


def main(payload: bytes, context: ProcessContext) -> None:
    """Run the controller; the engine calls this in the new process."""
    set_up_logging(read_settings().log_level)
    asyncio.run(_run(msgspec.msgpack.decode(payload, type=ControllerPayload), context))


async def _run(payload: ControllerPayload, context: ProcessContext) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def failed(name: str, error: BaseException) -> None:
        # A controller that goes on without one of its parts would decide on half the truth.
        logger.critical("controller: %s failed, ending", name, exc_info=error)
        stop.set()

    tasks = Tasks(on_error=failed)
    clock = MonotonicClock()
    address = unix_address(context.socket_path)
    engine = await LocalEngine.connect(payload.agent_address, tasks=tasks)
    plane = wired(
        engine, controller_address=address, expose_tracebacks=payload.expose_tracebacks, clock=clock, tasks=tasks
    )
    checkpoint = Checkpoint(SqliteStore(f"{context.instance_dir}/{CHECKPOINT_FILE}"))
    controller = Controller(engine, plane, checkpoint, strict_cpus=payload.strict_cpus)
    builds = Builds(engine, controller_address=address, on_failure=controller.build_failed, tasks=tasks)
    proxy_payloads = [
        ProxyPayload(controller_address=address, http=payload.http, listener=each) for each in payload.proxy_listeners
    ]
    proxies = Proxies(engine, proxy_payloads, on_status=plane.publisher.proxy_changed, clock=clock, tasks=tasks)
    controller.attend(builds, proxies)
    await controller.recover()
    await listen(address, lambda: Peer(controller, role="controller", name="controller", tasks=tasks))
    tasks.start(plane.loop.run(), name="control loop")
    # The agent takes this first question as the sign that the controller can be reached.
    await engine.nodes()
    await proxies.start()
    await stop.wait()
    await tasks.close()
    checkpoint.close()
