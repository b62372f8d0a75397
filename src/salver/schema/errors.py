"""The tree of Salver's errors. Every message says what, where, and what to do next."""

from functools import lru_cache
from typing import Any, SupportsIndex

from salver.lib.exceptions import PackedException, packed, pickles_itself, unpacked
from salver.schema.ids import DeploymentID, ReplicaID


class SalverError(Exception):
    """Base of all errors that Salver raises on purpose."""


class InvalidOption(SalverError, ValueError):
    """An option that is unknown, has the wrong type or a value that is not allowed."""


class BuildFailed(SalverError):
    """The application could not be imported or built; the message holds the user's own traceback."""


class EngineUnavailable(SalverError):
    """The engine cannot be used here; the message says what to install or start."""


class ResourcesUnavailable(SalverError):
    """A process asked for resources that no node has free."""


class StartFailed(SalverError):
    """A process could not be started; the message says why."""


class Disconnected(SalverError):
    """The process on the other side of a connection is gone."""


class ProtocolError(SalverError):
    """A peer sent something that the wire protocol does not allow."""


class BackPressureError(SalverError):
    """The caller's queue for a deployment is full.

    Args:
        num_queued_requests: How many requests of this caller wait.
        max_queued_requests: How many may.
        status_code: The HTTP status an ingress answers with (503 or 429).
        retry_after_s: Seconds for the `Retry-After` header; None leaves it out.
    """

    def __init__(
        self,
        num_queued_requests: int,
        max_queued_requests: int,
        status_code: int = 503,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(num_queued_requests, max_queued_requests, status_code, retry_after_s)
        self.status_code = status_code
        self.retry_after_s = retry_after_s
        self.message = (
            "Request dropped due to backpressure "
            f"(num_queued_requests={num_queued_requests}, max_queued_requests={max_queued_requests})."
        )

    def __str__(self) -> str:
        return self.message


class NoSuchMethod(SalverError):
    """A call names a method that the deployment does not have."""


class RequestCancelledError(SalverError):
    """The request was cancelled before it was answered."""

    def __init__(self, request_id: str | None = None) -> None:
        super().__init__(request_id)
        self.request_id = request_id
        self.message = f"Request {request_id} was cancelled."

    def __str__(self) -> str:
        return self.message


class RequestTimeoutError(SalverError, TimeoutError):
    """The time that the request's client waits is over; what it called is cancelled, and it calls nobody any more."""

    def __init__(self, request_id: str | None = None) -> None:
        super().__init__(request_id)
        self.request_id = request_id
        self.message = f"Request {request_id} timed out."

    def __str__(self) -> str:
        return self.message


class DeploymentUnavailableError(SalverError):
    """The deployment failed to deploy, or is gone, and has no replica to answer."""

    def __init__(self, deployment_id: DeploymentID, reason: str = "it failed to deploy") -> None:
        super().__init__(deployment_id, reason)
        self.deployment_id = deployment_id
        self.message = f"{deployment_id} is unavailable because {reason}."

    def __str__(self) -> str:
        return self.message


class ReplicaUnavailableError(SalverError):
    """The chosen replica is gone or cannot be reached."""

    def __init__(self, replica_id: ReplicaID) -> None:
        super().__init__(replica_id)
        self.replica_id = replica_id
        self.message = f"Replica {replica_id} is unavailable."

    def __str__(self) -> str:
        return self.message


class ReplicaDiedError(SalverError):
    """The replica died after it had been handed the request, so whether the request took effect is not known.

    Args:
        may_repeat: The request could have been sent again, were it not for those that were lost before.
    """

    def __init__(self, replica: str, request_id: str, may_repeat: bool = False) -> None:
        super().__init__(replica, request_id, may_repeat)
        self.request_id = request_id
        why = "replicas die too often while they work on it" if may_repeat else "it may have taken effect"
        self.message = (
            f"Replica {replica} died while it was working on request {request_id}. "
            f"The request was not sent again because {why}."
        )

    def __str__(self) -> str:
        return self.message


class RemoteError(SalverError):
    """Raised where a handle call is awaited when the called code raised.

    What is raised is an instance both of this class and of the original type, so that `except ValueError` works.

    Attributes:
        cause: The original exception as it was raised on the replica, or None where it could not be pickled.
        remote_traceback: The replica's traceback, as text.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""

    def __str__(self) -> str:
        return self.remote_traceback

    # Not `__reduce__`: the original type may have either of the two, and pickle asks for this one first.
    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        cause = self.cause
        travels = cause if cause is None or pickles_itself(cause) else packed(cause)
        return as_remote_error, (travels, self.remote_traceback)


def as_remote_error(cause: BaseException | PackedException | None, remote_traceback: str) -> RemoteError:
    """Return an error that is both a RemoteError and an instance of the cause's own type, where Python allows it."""
    if isinstance(cause, PackedException):
        cause = unpacked(cause)
    if isinstance(cause, RemoteError):
        return cause
    error = RemoteError() if cause is None else _remote_twin(cause)
    error.__dict__.update(cause=cause, remote_traceback=remote_traceback)
    return error


def _remote_twin(cause: BaseException) -> RemoteError:
    """Return a RemoteError that is also of the cause's type, or of the nearest base of it that allows it."""
    # StopIteration cannot be raised out of a coroutine or set on a future.
    if isinstance(cause, Exception) and not isinstance(cause, StopIteration):
        for kind in type(cause).__mro__:
            if issubclass(kind, Exception) and (twin := _twin_of_kind(cause, kind)) is not None:
                return twin
    return RemoteError()


def _twin_of_kind(cause: BaseException, kind: Any) -> RemoteError | None:
    try:
        twin = unpacked(packed(cause), _remote_kind(kind))
    except Exception:  # noqa: BLE001 - the type is final, or its metaclass or `__init_subclass__` refuses
        return None
    return twin if isinstance(twin, RemoteError) else None


@lru_cache(maxsize=256)
def _remote_kind(kind: type[Exception]) -> type[BaseException]:
    if issubclass(RemoteError, kind):
        return RemoteError
    return type(f"RemoteError({kind.__name__})", (RemoteError, kind), {"__module__": __name__})
