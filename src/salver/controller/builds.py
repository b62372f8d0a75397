"""Applications that are being built from an import path, each by a process of its own."""

from collections.abc import Callable
from itertools import count

import msgspec

from salver.controller.launch import preload_for
from salver.engine.base import Engine, Exit, ProcessSpec
from salver.lib.importing import ImportFailed, parse_target
from salver.schema.errors import BuildFailed, ResourcesUnavailable, StartFailed
from salver.schema.messages import BuildAndDeploy
from salver.schema.options import ActorOptions
from salver.schema.process_payloads import BuilderPayload

BUILDER_ENTRY = "salver.processes.builder:main"

OnFailure = Callable[[str, str], None]
"""(application's name, reason)"""


class Builds:
    """Starts builders and notices when one ends without a word.

    Args:
        on_failure: Called when an application cannot be built.
    """

    def __init__(self, engine: Engine, *, controller_address: str, on_failure: OnFailure) -> None:
        self._engine = engine
        self._controller_address = controller_address
        self._on_failure = on_failure
        self._numbers = count(1)
        self._building: dict[str, str] = {}
        """Application by its builder's process name."""

    async def start(self, order: BuildAndDeploy) -> None:
        """Start a builder for an application; an earlier one for the same name no longer counts.

        Raises:
            BuildFailed: The import path has no meaning, or the module could not be imported.
        """
        self.abandon(order.name)
        preload = preload_for(order.preload, ActorOptions())
        try:
            target = parse_target(order.import_path)
        except ImportFailed as error:
            raise BuildFailed(str(error)) from None
        name = f"build-{next(self._numbers)}"
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
        spec = ProcessSpec(
            name=name, entry=BUILDER_ENTRY, payload=msgspec.msgpack.encode(payload), preload=preload
        )
        # What was kept warm may hold the module as it was before its file changed.
        await self._engine.release(preload)
        self._building[name] = order.name
        try:
            await self._engine.start(spec)
        except (StartFailed, ResourcesUnavailable) as error:
            self._building.pop(name, None)
            raise BuildFailed(str(error)) from None

    def finished(self, process: str) -> str | None:
        """A builder has reported; return the application it still stands for, or None."""
        return self._building.pop(process, None)

    def abandon(self, application: str) -> None:
        """Do not wait for a build any longer."""
        self._building = {process: name for process, name in self._building.items() if name != application}

    def process_exited(self, exit_: Exit) -> None:
        """A process ended; a builder that has not reported has failed."""
        application = self._building.pop(exit_.name, None)
        if application is not None:
            self._on_failure(application, f"The builder {exit_}.\n{exit_.last_output}".rstrip())
