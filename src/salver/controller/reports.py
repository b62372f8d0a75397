"""What replicas say of themselves, on its way to their callers: many changes together, rarer where there are many."""

from salver.controller.events import ReplicaReported
from salver.controller.observed import Observed
from salver.controller.publisher import Publisher
from salver.lib.clock import Clock
from salver.lib.tasks import Tasks
from salver.schema.ids import DeploymentID
from salver.schema.messages import ReplicaReport

MIN_PAUSE_S = 0.1
REPLICAS_PER_SECOND = 1000
"""So many entries of replicas each caller of a deployment is sent in a second, if the replicas change all the time."""


class Reports:
    """Takes note of reports, and has them published a little later.

    A report changes nothing that is decided, so no deployment is looked at for it: it costs what a replica costs.

    Args:
        tasks: Owns what is to be published later.
    """

    def __init__(self, observed: Observed, publisher: Publisher, clock: Clock, tasks: Tasks) -> None:
        self._observed = observed
        self._publisher = publisher
        self._clock = clock
        self._tasks = tasks
        self._changed: set[DeploymentID] = set()

    def take(self, report: ReplicaReport) -> None:
        """Take a report; whose process is gone already is not heard."""
        now = self._clock.now()
        self._observed.apply(
            ReplicaReported(
                report.replica,
                report.multiplexed_model_ids,
                report.routing_stats,
                report.autoscaling_stats,
                report.metadata,
            ),
            now,
        )
        deployment = report.replica.deployment_id
        if deployment not in self._changed:
            self._changed.add(deployment)
            when = now + pause_s(len(self._observed.view(deployment).replicas))
            self._tasks.start(self._publish_at(when, deployment), name=f"publish {deployment.path}")

    async def _publish_at(self, when: float, deployment: DeploymentID) -> None:
        await self._clock.sleep_until(when)
        self._changed.discard(deployment)
        self._publisher.replicas_changed(deployment)


def pause_s(num_replicas: int) -> float:
    """Return for how long changes of a deployment's replicas are collected."""
    return max(MIN_PAUSE_S, num_replicas / REPLICAS_PER_SECOND)
