"""DeploymentHandle: what code that calls a deployment holds."""

import warnings
from typing import Any, Generic, TypeVar

from salver.handle.call import Call
from salver.handle.options import CallOptions
from salver.handle.request_context import current_request, request_ids
from salver.handle.response import DeploymentResponse
from salver.handle.session import current_session, find_session
from salver.schema.ids import DEFAULT_APP_NAME, DeploymentID

T = TypeVar("T")

_PICKLED = "cloudpickle"


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
        self,
        *,
        method_name: str | None = None,
        multiplexed_model_id: str | None = None,
        session_id: str | None = None,
        request_serialization: str | None = None,
        response_serialization: str | None = None,
        _by_reference: bool | None = None,
        _prefer_local_routing: bool | None = None,
    ) -> "DeploymentHandle[T]":
        """Return a handle to the same deployment that calls differently.

        Args:
            method_name: The method to call; `__call__` unless set.
            multiplexed_model_id: The model that the call is for; "" for none.
            session_id: Calls of the same session go to the same replica, where the deployment's router knows how.
            request_serialization: How arguments travel: "cloudpickle" unless set, "pickle", "msgpack" or "orjson".
            response_serialization: How results travel.
        """
        if _prefer_local_routing is not None:
            warnings.warn("`_prefer_local_routing` is deprecated and has no effect.", DeprecationWarning, stacklevel=2)
        changes: dict[str, Any] = {
            "method_name": method_name,
            "multiplexed_model_id": multiplexed_model_id,
            "session_id": session_id,
            "by_reference": _by_reference,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        if request_serialization is not None or response_serialization is not None:
            request, response = self._options.serialization or (_PICKLED, _PICKLED)
            chosen = (request_serialization or request, response_serialization or response)
            given["serialization"] = None if chosen == (_PICKLED, _PICKLED) else chosen
        return DeploymentHandle(
            self._deployment.name, self._deployment.app_name, _options=self._options._replace(**given)
        )

    def remote(self, *args: Any, **kwargs: Any) -> DeploymentResponse[Any]:
        """Call the deployment; returns at once.

        A top-level argument that is the response of another call is replaced by its result before the call is made.
        One inside of an argument goes by reference: the called code awaits it.

        Raises:
            SalverError: Nothing runs.
            Exception: An argument cannot be pickled.
        """
        context = current_request()
        options = self._options
        call = Call(current_session(), self._deployment, options, context.request_id or request_ids.new(), args, kwargs)
        call.start(context)
        response = call.response
        if not options.by_reference:
            response.by_reference = False
        return response

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
