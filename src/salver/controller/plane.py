"""The control plane's parts, wired: what is wanted, what is, who decides and who acts."""

from dataclasses import dataclass

from salver.controller.desired import Desired
from salver.controller.executor import Executor
from salver.controller.loop import ControlLoop
from salver.controller.observed import Observed
from salver.controller.publisher import Publisher
from salver.controller.reports import Reports
from salver.controller.snapshots import Snapshots
from salver.engine.base import Engine
from salver.lib.clock import Clock
from salver.lib.tasks import Tasks


@dataclass(frozen=True)
class ControlPlane:
    """The parts that every verb needs; each knows only those above it."""

    desired: Desired
    observed: Observed
    snapshots: Snapshots
    publisher: Publisher
    reports: Reports
    loop: ControlLoop
    executor: Executor


def wired(
    engine: Engine, *, controller_address: str, expose_tracebacks: bool, clock: Clock, tasks: Tasks
) -> ControlPlane:
    """Return a control plane that acts on an engine; its loop is not running yet.

    Args:
        controller_address: Where replicas report.
    """
    desired, observed, snapshots = Desired(), Observed(), Snapshots()
    publisher = Publisher(desired, observed, snapshots)
    reports = Reports(observed, publisher, clock, tasks)
    loop = ControlLoop(desired, observed, publisher, clock, tasks)
    executor = Executor(
        engine,
        controller_address=controller_address,
        expose_tracebacks=expose_tracebacks,
        on_event=loop.feed,
        tasks=tasks,
    )
    loop.act_through(executor)
    return ControlPlane(desired, observed, snapshots, publisher, reports, loop, executor)
