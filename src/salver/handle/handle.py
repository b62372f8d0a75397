"""DeploymentHandle: what code that calls a deployment holds."""

from typing import Any, Generic, NamedTuple, TypeVar

from salver.handle.call import Call
from salver.handle.request_context import current_request, request_ids
from salver.handle.response import DeploymentResponse, running_loop
from salver.handle.session import current_session, find_session
from salver.schema.ids import DEFAULT_APP_NAME, DeploymentID
from salver.transport.wire import CallHead

T = TypeVar("T")


class CallOptions(NamedTuple):
    """How a handle calls."""

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    prefer_local: bool = False


class DeploymentHandle(Generic[T]):
    """Calls a deployment from anywhere: `await handle.remote(x)`, `handle.method.remote(x).result()`.

    Handles are made by `serve.run`, by passing a bound deployment to another one's `.bind()`, and by
    `serve.get_deployment_handle`. They can be pickled, and outlive updates of the deployment.
    """

    def __init__(
        self, deployment_name: str, app_name: str = DEFAULT_APP_NAME, *, _options: CallOptions | None = None
    ) -> None:
        self._deployment = DeploymentID(deployment_name, app_name)
        self._options = _options or CallOptions()
        self._was_set_up = False

    @property
    def deployment_name(self) -> str:
        """Return the name of the deployment it calls."""
        return self._deployment.name

    @property
    def app_name(self) -> str:
        """Return the application of the deployment it calls."""
        return self._deployment.app_name

    @property
    def is_initialized(self) -> bool:
        """Say whether calls can be made: the process is connected to a running instance."""
        return find_session() is not None

    def options(
        self, *, method_name: str | None = None, multiplexed_model_id: str | None = None, session_id: str | None = None
    ) -> "DeploymentHandle[T]":
        """Return a handle to the same deployment that calls differently.

        Args:
            method_name: The method to call; `__call__` unless set.
            multiplexed_model_id: The model that the call is for; "" for none.
            session_id: Calls of the same session go to the same replica, where the deployment's router knows how.
        """
        changes = {
            "method_name": method_name,
            "multiplexed_model_id": multiplexed_model_id,
            "session_id": session_id,
        }
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        return DeploymentHandle(
            self._deployment.name, self._deployment.app_name, _options=self._options._replace(**given)
        )

    def _init(self, *, _prefer_local_routing: bool = False) -> None:
        """Say how this handle calls, before its first call and once.

        Args:
            _prefer_local_routing: Near replicas go first: on the caller's node, then in its zone.

        Raises:
            RuntimeError: It was said before.
        """
        if self._was_set_up:
            raise RuntimeError("The handle was initialized before; _init() may be called once, before its first call.")
        self._was_set_up = True
        self._options = self._options._replace(prefer_local=_prefer_local_routing)

    def remote(self, *args: Any, **kwargs: Any) -> DeploymentResponse[Any]:
        """Call the deployment; returns at once.

        Top-level arguments that are responses of other calls are replaced by their results before the call is made.

        Raises:
            SalverError: Nothing runs.
            Exception: An argument cannot be pickled.
        """
        session = current_session()
        context = current_request()
        head = CallHead(
            method=self._options.method_name,
            request_id=context.request_id or request_ids.new(),
            route=context.route,
            app_name=self._deployment.app_name,
            multiplexed_model_id=self._options.multiplexed_model_id,
            session_id=self._options.session_id,
        )
        call = Call(session, self._deployment, head, args, kwargs)
        if self._options.prefer_local:
            call.hints = call.hints._replace(prefer_local=True)
        call.start(context, in_loop=running_loop() is session.loop)
        return DeploymentResponse(call)

    def __getattr__(self, name: str) -> "DeploymentHandle[T]":
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        # Kept, so that the next `handle.method` is a plain attribute.
        method = self.__dict__[name] = self.options(method_name=name)
        return method

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._deployment.name, self._deployment.app_name, tuple(self._options))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DeploymentHandle)
            and other._deployment == self._deployment
            and other._options == self._options
        )

    def __hash__(self) -> int:
        return hash((self._deployment, self._options))

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment='{self._deployment.name}')"


def _rebuild(name: str, app_name: str, options: tuple[Any, ...]) -> "DeploymentHandle[Any]":
    return DeploymentHandle(name, app_name, _options=CallOptions(*options))
