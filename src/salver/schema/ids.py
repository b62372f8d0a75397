"""Names of things."""

import msgspec

DEFAULT_APP_NAME = "default"


class DeploymentID(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A deployment of an application."""

    name: str
    app_name: str = DEFAULT_APP_NAME

    def __str__(self) -> str:
        return f"Deployment(name='{self.name}', app='{self.app_name}')"

    @property
    def path(self) -> str:
        """Return "app/deployment", as in topics and log lines."""
        return f"{self.app_name}/{self.name}"


class ReplicaID(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One replica of a deployment; `unique_id` is eight characters that are never used again."""

    unique_id: str
    deployment_id: DeploymentID

    def __str__(self) -> str:
        return f"{self.deployment_id.app_name}#{self.deployment_id.name}#{self.unique_id}"


class ReplicaRank(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Which of its deployment's replicas a replica is; each counts from 0.

    Attributes:
        rank: Among all of them.
        node_rank: Its node, among those that have replicas of the deployment.
        local_rank: Among those on its node.
    """

    rank: int = 0
    node_rank: int = 0
    local_rank: int = 0
