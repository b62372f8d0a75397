"""From desired and observed to topics: routing tables, replica sets, statuses."""

from collections.abc import Iterable

import msgspec

from salver.controller.desired import Desired, Wish
from salver.controller.lifecycle import SHOWN_AS, Stage
from salver.controller.observed import Observed, View
from salver.controller.reconcile import is_undecided
from salver.controller.rollout import gave_up
from salver.controller.snapshots import Snapshots
from salver.controller.status import Standing, application_standing, asked, next_standing
from salver.schema.application import RouterSpec
from salver.schema.ids import DeploymentID
from salver.schema.options import BackpressureConfig
from salver.schema.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ProxyStatus,
    ReplicaDetails,
    ServeStatus,
)
from salver.schema.topics import ROUTES_TOPIC, STATUS_TOPIC, ReplicaEntry, Replicas, Status, replicas_topic

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
        self._standings: dict[str, dict[str, Standing]] = {}
        """By application and deployment."""
        self._applications: dict[str, ApplicationStatusOverview] = {}
        self._builds: dict[str, ApplicationStatusOverview] = {}
        self._proxies: dict[str, ProxyStatus] = {}
        self._held_back: set[str] = set()
        """Topics that nobody can tell the truth of yet: subscribers go on with what an earlier controller said."""

    def holds_back(self, topic: str) -> bool:
        """Say whether a topic has no value yet, but will soon."""
        return topic in self._held_back

    def status(self) -> ServeStatus:
        """Return the status of the whole instance."""
        shown = {name: self._shown_while_built(name, build) for name, build in self._builds.items()}
        return ServeStatus(proxies=dict(self._proxies), applications={**self._applications, **shown})

    def detailed_status(self) -> ServeStatus:
        """Return the status of the whole instance, with each replica; as much work as there are replicas."""
        status = self.status()
        for app_name, application in status.applications.items():
            detailed = {
                name: msgspec.structs.replace(
                    each, replicas=_details(self._observed.view(DeploymentID(name, app_name)))
                )
                for name, each in application.deployments.items()
            }
            status.applications[app_name] = msgspec.structs.replace(application, deployments=detailed)
        return status

    def wish_changed(self, deployments: set[DeploymentID]) -> None:
        """Show deployments as they are wanted from now on: the status, who takes their requests, and the routes."""
        for each in deployments:
            wish = self._desired.wish_for(each)
            standings = self._standings.setdefault(each.app_name, {})
            standings[each.name] = asked(standings.get(each.name), wish)
            view = self._observed.view(each)
            self._publish_replicas(each, wish, view, undecided=view.undecided_until is not None)
        # Before anybody hears that the wish was taken, the status must be that of the new wish.
        for name in {each.app_name for each in deployments}:
            self._refresh_application(name)
        self._snapshots.publish(ROUTES_TOPIC, self._desired.routes())
        self._publish_status()

    def replicas_changed(self, deployment: DeploymentID) -> None:
        """Show what a deployment's replicas say of themselves; its status is what it was."""
        view = self._observed.view(deployment)
        if view.replicas:
            wish = self._desired.wish_for(deployment)
            self._publish_replicas(deployment, wish, view, undecided=view.undecided_until is not None)

    def proxy_changed(self, node_id: str, status: ProxyStatus) -> None:
        """Show a node's proxy."""
        self._proxies[node_id] = status
        self._publish_status()

    def build_changed(self, name: str, status: ApplicationStatus, message: str, wall_time_s: float) -> None:
        """Show an application that is being built, or could not be."""
        self._builds[name] = ApplicationStatusOverview(
            status=status, message=message, last_deployed_time_s=wall_time_s, deployments={}
        )
        self._publish_status()

    def build_over(self, name: str) -> None:
        """Show an application as it is again."""
        if self._builds.pop(name, None) is not None:
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
        standings = self._standings.setdefault(deployment.app_name, {})
        if wish is None and not view.replicas:
            standings.pop(deployment.name, None)
            self._snapshots.withdraw(replicas_topic(deployment), UNKNOWN)
        else:
            standings[deployment.name] = next_standing(standings.get(deployment.name, Standing()), wish, view, now)
            self._publish_replicas(deployment, wish, view, undecided=is_undecided(view, now))

    def _publish_replicas(self, deployment: DeploymentID, wish: Wish | None, view: View, *, undecided: bool) -> None:
        topic = replicas_topic(deployment)
        if undecided:
            self._held_back.add(topic)
        else:
            self._held_back.discard(topic)
            self._snapshots.publish(topic, _replicas(wish, view))

    def _refresh_application(self, name: str) -> None:
        wanted = self._desired.applications.get(name)
        standings = self._standings.get(name, {})
        if wanted is None and not standings:
            self._standings.pop(name, None)
            self._applications.pop(name, None)
            return
        status, message, deployed_at_s, prefix = ApplicationStatus.DELETING, "", 0.0, None
        if wanted is not None:
            # Deployments that the application no longer has are shown, but it does not wait for them.
            own = [each.name for each in wanted.spec.deployments]
            status, message = application_standing((each, standings.get(each, Standing())) for each in own)
            deployed_at_s, prefix = wanted.deployed_at_s, wanted.spec.route_prefix
        self._applications[name] = ApplicationStatusOverview(
            status=status,
            message=message,
            last_deployed_time_s=deployed_at_s,
            deployments=dict(self._overviews(name, standings)),
            route_prefix=prefix,
        )

    def _overviews(
        self, application: str, standings: dict[str, Standing]
    ) -> Iterable[tuple[str, DeploymentStatusOverview]]:
        for name, standing in sorted(standings.items()):
            yield (
                name,
                DeploymentStatusOverview(
                    status=standing.status,
                    status_trigger=standing.trigger,
                    replica_states=self._observed.view(DeploymentID(name, application)).counts(),
                    message=standing.message,
                ),
            )

    def _shown_while_built(self, name: str, build: ApplicationStatusOverview) -> ApplicationStatusOverview:
        old = self._applications.get(name)
        if old is None:
            return build
        return msgspec.structs.replace(build, deployments=old.deployments, route_prefix=old.route_prefix)

    def _publish_status(self) -> None:
        # It is as large as all there is: made only where somebody looks.
        if self._snapshots.is_watched(STATUS_TOPIC):
            self._snapshots.publish(STATUS_TOPIC, Status(self.status()))
        else:
            self._snapshots.outdate(STATUS_TOPIC)


def _replicas(wish: Wish | None, view: View) -> Replicas:
    """Return who takes requests for a deployment now, and what callers should do while nobody does."""
    if wish is None:
        return Replicas(unavailable="its application was deleted")
    options = wish.spec.options
    backpressure = options.backpressure_config or BackpressureConfig()
    running = view.in_stage(Stage.RUNNING)
    return Replicas(
        replicas=tuple(
            ReplicaEntry(
                each.id,
                each.address,
                each.node_id,
                options.max_ongoing_requests,
                each.multiplexed_model_ids,
                dict(each.routing_stats),
                dict(each.metadata),
            )
            for each in sorted(running, key=lambda each: each.id)
        ),
        max_queued_requests=options.max_queued_requests,
        backpressure_status=backpressure.status_code,
        backpressure_retry_after_s=backpressure.retry_after_s,
        request_priorities=options.request_priorities,
        unavailable="it failed to deploy" if gave_up(wish, view) else None,
        router=_router(wish),
    )


def _details(view: View) -> tuple[ReplicaDetails, ...]:
    return tuple(
        ReplicaDetails(
            replica_id=each.id.unique_id,
            state=SHOWN_AS[each.stage],
            node_id=each.node_id or None,
            pid=each.pid or None,
            multiplexed_model_ids=each.multiplexed_model_ids,
            routing_stats=dict(each.routing_stats),
            metadata=dict(each.metadata),
        )
        for each in sorted(view.replicas.values(), key=lambda each: each.id)
    )


def _router(wish: Wish) -> RouterSpec | None:
    router = wish.spec.router
    if router is None or router.code is None:
        return router
    return msgspec.structs.replace(router, search_path=wish.application.preload.search_path)
