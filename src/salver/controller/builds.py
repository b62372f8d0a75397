"""Applications that are being built from an import path, each by a process of its own."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from itertools import count

import msgspec

from salver.controller.launch import number_in, preload_for
from salver.engine.base import Engine, Exit, ProcessSpec
from salver.lib.importing import ImportFailed, parse_target
from salver.lib.tasks import Tasks
from salver.schema.application import Preload
from salver.schema.errors import BuildFailed, ResourcesUnavailable, SalverError, StartFailed
from salver.schema.messages import BuildAndDeploy
from salver.schema.options import ActorOptions
from salver.schema.process_payloads import BuilderNote, BuilderPayload

BUILDER_ENTRY = "salver.processes.builder:main"

OnFailure = Callable[[str, str], None]
"""(application's name, reason)"""


class Builds:
    """Starts builders and notices when one ends without a word.

    Args:
        on_failure: Called when a builder died; `start` raises all else.
        tasks: Owns the ends of builders that nobody waits for any longer.
    """

    def __init__(self, engine: Engine, *, controller_address: str, on_failure: OnFailure, tasks: Tasks) -> None:
        self._engine = engine
        self._controller_address = controller_address
        self._on_failure = on_failure
        self._tasks = tasks
        self._numbers = count(1)
        self._building: dict[str, str] = {}
        """Application by its builder's process name."""

    def adopt(self, builders: Mapping[str, str]) -> None:
        """Wait for the builders that an earlier controller started: applications by process name."""
        self._building.update(builders)
        self._numbers = count(1 + max((number_in(each) for each in builders), default=0))

    def builder_for(self, order: BuildAndDeploy) -> ProcessSpec:
        """Return the process that builds an application.

        Raises:
            BuildFailed: The import path has no meaning.
        """
        try:
            target = parse_target(order.import_path)
        except ImportFailed as error:
            raise BuildFailed(str(error)) from None
        payload = BuilderPayload(
            controller_address=self._controller_address,
            import_path=order.import_path,
            module=target.module,
            attribute=target.attribute,
            arguments=order.arguments,
            name=order.name,
            route_prefix=order.route_prefix,
            preload=order.preload,
        )
        return ProcessSpec(
            name=f"build-{next(self._numbers)}",
            entry=BUILDER_ENTRY,
            payload=msgspec.msgpack.encode(payload),
            preload=preload_for(order.preload, ActorOptions()),
            note=msgspec.msgpack.encode(BuilderNote(order.name)),
        )

    async def start(self, application: str, builder: ProcessSpec, stale: Iterable[Preload]) -> None:
        """Start a builder in place of an earlier one for the same application.

        Args:
            stale: What was kept warm may hold the module as it was before its file changed.

        Raises:
            BuildFailed: The module could not be imported. Or nobody waits for this build any longer: `stands` tells.
        """
        self.abandon(application)
        self._building[builder.name] = application
        for preload in stale:
            await self._engine.release(preload)
        try:
            await self._engine.start(builder)
        except (StartFailed, ResourcesUnavailable) as error:
            raise BuildFailed(str(error)) from None
        finally:
            if not self.stands(builder.name):
                # The order to end it may have come before there was anything to end.
                self._end(builder.name)

    def stands(self, process: str) -> bool:
        """Say whether its application still waits for a builder: it was neither overtaken nor given up."""
        return process in self._building

    def finished(self, process: str) -> None:
        """Wait no longer for a builder."""
        self._building.pop(process, None)

    def abandon(self, application: str) -> None:
        """End an application's build, if there is one."""
        for process in [process for process, name in self._building.items() if name == application]:
            self.finished(process)
            self._end(process)

    def process_exited(self, exit_: Exit) -> None:
        """A process ended; a builder that has not reported has failed."""
        application = self._building.pop(exit_.name, None)
        if application is not None:
            self._on_failure(application, f"The builder {exit_}.\n{exit_.last_output}".rstrip())

    def _end(self, process: str) -> None:
        self._tasks.start(self._kill(process), name=f"end {process}")

    async def _kill(self, process: str) -> None:
        # Without an engine there is nobody to kill: its processes ended with it.
        with contextlib.suppress(SalverError):
            await self._engine.signal(process, kill=True)
