"""From desired and observed to topics: routing tables, replica sets, statuses."""

from salver.controller.desired import Desired, Wish
from salver.controller.lifecycle import Stage
from salver.controller.observed import Observed, View
from salver.controller.rollout import gave_up
from salver.controller.snapshots import Snapshots
from salver.controller.status import Standing, application_standing, next_standing, updated
from salver.schema.ids import DeploymentID
from salver.schema.messages import (
    ROUTES_TOPIC,
    STATUS_TOPIC,
    ReplicaEntry,
    Replicas,
    Status,
    replicas_topic,
)
from salver.schema.options import BackpressureConfig
from salver.schema.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ProxyStatus,
    ServeStatus,
)

UNKNOWN = Replicas(unavailable="it does not exist")


class Publisher:
    """Keeps the topics true.

    Args:
        snapshots: Where they are published.
    """

    def __init__(self, desired: Desired, observed: Observed, snapshots: Snapshots) -> None:
        self._desired = desired
        self._observed = observed
        self._snapshots = snapshots
        self._standings: dict[DeploymentID, Standing] = {}
        self._applications: dict[str, ApplicationStatusOverview] = {}
        self._builds: dict[str, ApplicationStatusOverview] = {}
        self._proxies: dict[str, ProxyStatus] = {}

    def status(self) -> ServeStatus:
        """Return the status of the whole instance."""
        return ServeStatus(proxies=dict(self._proxies), applications={**self._applications, **self._builds})

    def wish_changed(self, deployments: set[DeploymentID]) -> None:
        """Show deployments as updating, and publish the routes."""
        for each in deployments:
            self._standings[each] = updated(self._standings.get(each))
        # Before anybody hears that the wish was taken, the status must be that of the new wish.
        for name in {each.app_name for each in deployments}:
            self._refresh_application(name)
        self._snapshots.publish(ROUTES_TOPIC, self._desired.routes())
        self._publish_status()

    def proxy_changed(self, node_id: str, status: ProxyStatus) -> None:
        """Show a node's proxy."""
        self._proxies[node_id] = status
        self._publish_status()

    def build_changed(self, name: str, status: ApplicationStatus | None, message: str, wall_time_s: float) -> None:
        """Show an application that is being built, or could not be; None when it is built."""
        if status is None:
            self._builds.pop(name, None)
        else:
            old = self._applications.get(name)
            self._builds[name] = ApplicationStatusOverview(
                status=status,
                message=message,
                last_deployed_time_s=wall_time_s,
                deployments=old.deployments if old is not None else {},
            )
        self._publish_status()

    def publish(self, touched: set[DeploymentID], now: float) -> None:
        """Publish what follows from a look at some deployments."""
        for deployment in touched:
            self._publish_deployment(deployment, now)
        for name in {deployment.app_name for deployment in touched}:
            self._refresh_application(name)
        self._publish_status()

    def _publish_deployment(self, deployment: DeploymentID, now: float) -> None:
        wish, view = self._desired.wish_for(deployment), self._observed.view(deployment)
        topic = replicas_topic(deployment)
        self._standings[deployment] = next_standing(self._standings.get(deployment, Standing()), wish, view, now)
        if wish is None and not view.replicas:
            del self._standings[deployment]
            self._snapshots.withdraw(topic, UNKNOWN)
        else:
            self._snapshots.publish(topic, _replicas(wish, view))

    def _refresh_application(self, name: str) -> None:
        wanted = self._desired.applications.get(name)
        deployments = sorted(each for each in self._standings if each.app_name == name)
        if wanted is None and not deployments:
            self._applications.pop(name, None)
            return
        standings = [(each.name, self._standings[each]) for each in deployments]
        status, message = application_standing(standings)
        self._applications[name] = ApplicationStatusOverview(
            status=status if wanted is not None else ApplicationStatus.DELETING,
            message=message if wanted is not None else "",
            last_deployed_time_s=wanted.deployed_at_s if wanted is not None else 0.0,
            deployments={each.name: self._overview(each) for each in deployments},
            route_prefix=wanted.spec.route_prefix if wanted is not None else None,
        )

    def _overview(self, deployment: DeploymentID) -> DeploymentStatusOverview:
        standing = self._standings[deployment]
        return DeploymentStatusOverview(
            status=standing.status,
            status_trigger=standing.trigger,
            replica_states=self._observed.view(deployment).counts(),
            message=standing.message,
        )

    def _publish_status(self) -> None:
        self._snapshots.publish(STATUS_TOPIC, Status(self.status()))


def _replicas(wish: Wish | None, view: View) -> Replicas:
    """Return who takes requests for a deployment now, and what callers should do while nobody does."""
    if wish is None:
        return Replicas(unavailable="its application was deleted")
    options = wish.spec.options
    backpressure = options.backpressure_config or BackpressureConfig()
    running = view.in_stage(Stage.RUNNING)
    return Replicas(
        replicas=tuple(
            ReplicaEntry(each.id, each.address, each.node_id, options.max_ongoing_requests)
            for each in sorted(running, key=lambda each: each.id)
        ),
        max_queued_requests=options.max_queued_requests,
        backpressure_status=backpressure.status_code,
        backpressure_retry_after_s=backpressure.retry_after_s,
        unavailable="it failed to deploy" if gave_up(wish, view) else None,
    )
