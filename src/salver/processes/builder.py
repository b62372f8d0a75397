"""A builder's process: evaluate `module:app` where its module is in memory, tell the controller, exit."""

import asyncio

import msgspec

from salver.api.build import build
from salver.api.target import application_from
from salver.engine.base import ProcessContext
from salver.handle.link import ControllerLink
from salver.lib.importing import ImportFailed, get_attribute, import_module
from salver.lib.tasks import Tasks
from salver.lib.tracebacks import user_traceback
from salver.schema.errors import SalverError
from salver.schema.messages import BuildError, Built, Done
from salver.schema.process_payloads import BuilderPayload


def main(payload: bytes, context: ProcessContext) -> None:
    """Build an application; the engine calls this in the new process."""
    order = msgspec.msgpack.decode(payload, type=BuilderPayload)
    asyncio.run(_report(order, _build(order), context))


def _build(order: BuilderPayload) -> Built | BuildError:
    try:
        target = get_attribute(import_module(order.module), order.attribute)
        application = application_from(target, order.arguments, described_as=order.import_path)
        spec = build(application, name=order.name, route_prefix=order.route_prefix, preload=order.preload)
    except (SalverError, ImportFailed) as error:
        return BuildError(order.name, str(error))
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit included
        return BuildError(order.name, user_traceback(error))
    return Built(order.name, spec)


async def _report(order: BuilderPayload, result: Built | BuildError, context: ProcessContext) -> None:
    tasks = Tasks(on_error=lambda _name, _error: None)
    link = ControllerLink(role="builder", name=context.name, tasks=tasks)
    await link.connect(order.controller_address)
    await link.ask(result, Done)
    link.close()
