"""What was asked: applications and their deployments. Changed by verbs only; checkpointed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from salver.schema.application import ApplicationSpec, DeploymentSpec
from salver.schema.errors import SalverError
from salver.schema.ids import DeploymentID
from salver.schema.topics import Route, Routes


@dataclass(frozen=True)
class Wish:
    """One deployment as it is wanted.

    Attributes:
        replicas: How many.
        version: Replicas of another version are replaced.
    """

    id: DeploymentID
    spec: DeploymentSpec
    application: ApplicationSpec
    replicas: int

    @property
    def version(self) -> str:
        """Return the version its replicas must have."""
        return self.application.version

    @property
    def max_startup_failures(self) -> int:
        """Return after how many failed starts in a row it is given up; Ray Serve's rule: three for each replica."""
        return min(self.spec.options.max_constructor_retry_count, 3 * max(1, self.replicas))


@dataclass(frozen=True)
class WantedApplication:
    """An application as it is wanted, and when (wall-clock seconds) that was said."""

    spec: ApplicationSpec
    deployed_at_s: float


class Desired:
    """All that was asked of this instance."""

    def __init__(self) -> None:
        self.applications: dict[str, WantedApplication] = {}

    def deploy(self, spec: ApplicationSpec, wall_time_s: float) -> set[DeploymentID]:
        """Want this application, in place of an earlier one of its name; return the deployments this touches.

        Raises:
            SalverError: Another application has its route prefix.
        """
        self.check_prefix(spec.name, spec.route_prefix)
        touched = self._deployments_of(spec.name)
        self.applications[spec.name] = WantedApplication(spec, wall_time_s)
        return touched | self._deployments_of(spec.name)

    def delete(self, name: str) -> set[DeploymentID]:
        """Stop wanting an application; return the deployments this touches."""
        touched = self._deployments_of(name)
        self.applications.pop(name, None)
        return touched

    def check_prefix(self, name: str, route_prefix: str | None) -> None:
        """Refuse a route prefix that another application has.

        Raises:
            SalverError: It is taken.
        """
        if route_prefix is None:
            return
        for other, wanted in self.applications.items():
            if other != name and wanted.spec.route_prefix == route_prefix:
                raise SalverError(
                    f'Prefix {route_prefix} is being used by application "{other}". '
                    f'Failed to deploy application "{name}".'
                )

    def wish_for(self, deployment: DeploymentID) -> Wish | None:
        """Return how a deployment is wanted, or None."""
        wanted = self.applications.get(deployment.app_name)
        if wanted is None:
            return None
        for spec in wanted.spec.deployments:
            if spec.name == deployment.name:
                return Wish(deployment, spec, wanted.spec, spec.options.initial_replicas)
        return None

    def wishes(self) -> Iterable[Wish]:
        """Return every deployment that is wanted."""
        for name in self.applications:
            for deployment in sorted(self._deployments_of(name)):
                if (wish := self.wish_for(deployment)) is not None:
                    yield wish

    def routes(self) -> Routes:
        """Return the routing table: longest prefixes first."""
        routes = [
            Route(
                wanted.spec.route_prefix,
                name,
                wanted.spec.deployment_id(wanted.spec.ingress),
                _longest_body(wanted.spec),
            )
            for name, wanted in self.applications.items()
            if wanted.spec.route_prefix is not None
        ]
        return Routes(tuple(sorted(routes, key=lambda route: (-len(route.prefix), route.prefix))))

    def _deployments_of(self, name: str) -> set[DeploymentID]:
        wanted = self.applications.get(name)
        return set() if wanted is None else {wanted.spec.deployment_id(each.name) for each in wanted.spec.deployments}


def _longest_body(spec: ApplicationSpec) -> int | None:
    ingress = next((each for each in spec.deployments if each.name == spec.ingress), None)
    return None if ingress is None else ingress.options.max_request_body_bytes
