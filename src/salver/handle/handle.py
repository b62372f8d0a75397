"""DeploymentHandle: what code that calls a deployment holds."""

import warnings
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

from salver.handle.broadcast import Broadcast, DeploymentBroadcastResponse
from salver.handle.call import Call
from salver.handle.handle_types import BoundLater, SomeOptions
from salver.handle.life import Life
from salver.handle.options import CallOptions
from salver.handle.request_context import RequestContext, current_request, request_ids
from salver.handle.response import DeploymentResponse
from salver.handle.response_generator import DeploymentResponseGenerator
from salver.handle.selection import DispatchedCall, ReplicaSelection, Wish, chosen
from salver.handle.session import Session, current_session, find_session
from salver.handle.streaming_call import StreamingCall
from salver.schema.ids import DEFAULT_APP_NAME, DeploymentID
from salver.schema.urgency import checked_urgency
from salver.transport.codec import dumps
from salver.transport.wire import CallHead

if TYPE_CHECKING:
    import typing_extensions

    from salver.handle.stream_handle import StreamHandle

    # With a default, strict checkers let people write `DeploymentHandle` for a handle to anything.
    T_co = typing_extensions.TypeVar("T_co", covariant=True, default=Any)
else:
    T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
M = TypeVar("M")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

_PICKLED = "cloudpickle"


class DeploymentHandle(Generic[T_co]):
    """Calls a deployment from anywhere: `await handle.remote(x)`, `handle.method.remote(x).result()`.

    Handles are made by `serve.run`, by passing a bound deployment to another one's `.bind()`, and by
    `serve.get_deployment_handle`. They can be pickled, and outlive updates of the deployment.

    Annotated as `DeploymentHandle[Model]`, type checkers know what `remote` and `handle[Model.method].remote` take and
    return; see docs/typed_handles.md.
    """

    def __init__(
        self,
        deployment_name: str,
        app_name: str = DEFAULT_APP_NAME,
        *,
        _options: CallOptions | None = None,
        _life: Life | None = None,
    ) -> None:
        self._deployment = DeploymentID(deployment_name, app_name)
        self._options = _options or CallOptions()
        self._life = _life or Life(self._deployment)

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
        """Say whether calls can be made: the process is connected to a running instance, and this was not shut down."""
        return find_session() is not None and not self._life.is_over

    @overload
    def options(
        self, *, stream: Literal[False] | None = None, **options: Unpack[SomeOptions]
    ) -> "DeploymentHandle[T_co]": ...

    @overload
    def options(self, *, stream: Literal[True], **options: Unpack[SomeOptions]) -> "StreamHandle[T_co]": ...

    @overload
    def options(
        self, *, method_name: str, stream: Literal[True], **options: Unpack[SomeOptions]
    ) -> "StreamHandle[Any]": ...

    @overload
    def options(
        self, *, method_name: str, stream: Literal[False] | None = None, **options: Unpack[SomeOptions]
    ) -> "DeploymentHandle[Any]": ...

    @overload
    def options(
        self, *, method_name: str | None = None, stream: bool | None, **options: Unpack[SomeOptions]
    ) -> Any: ...

    def options(  # noqa: PLR0913 - all by name
        self,
        *,
        method_name: str | None = None,
        multiplexed_model_id: str | None = None,
        session_id: str | None = None,
        priority: int | None = None,
        stream: bool | None = None,
        request_serialization: str | None = None,
        response_serialization: str | None = None,
        _by_reference: bool | None = None,
        _prefer_local_routing: bool | None = None,
    ) -> Any:
        """Return a handle to the same deployment that calls differently.

        Args:
            method_name: The method to call; `__call__` unless set.
            multiplexed_model_id: The model that the call is for; "" for none.
            session_id: Calls of the same session go to the same replica, where the deployment's router knows how.
            priority: From 0 (most urgent) to 7 (least), for deployments with `request_priorities`; unless it is set, a
                call has that of the request that it is made for, and 3 outside of requests.
            stream: The method is a generator: `remote()` returns a DeploymentResponseGenerator of its items.
            request_serialization: How arguments travel: "cloudpickle" unless set, "pickle", "msgpack" or "orjson".
            response_serialization: How results travel.
        """
        if _prefer_local_routing is not None:
            warnings.warn("`_prefer_local_routing` belongs to handle._init() now.", DeprecationWarning, stacklevel=2)
        changes: dict[str, Any] = {
            "method_name": method_name,
            "multiplexed_model_id": multiplexed_model_id,
            "session_id": session_id,
            "priority": None if priority is None else checked_urgency(priority),
            "stream": stream,
            "prefer_local": _prefer_local_routing,
            "by_reference": _by_reference,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        if request_serialization is not None or response_serialization is not None:
            request, response = self._options.serialization or (_PICKLED, _PICKLED)
            chosen = (request_serialization or request, response_serialization or response)
            given["serialization"] = None if chosen == (_PICKLED, _PICKLED) else chosen
        return DeploymentHandle(
            self._deployment.name,
            self._deployment.app_name,
            _options=self._options._replace(**given),
            _life=self._life,
        )

    # What a handler returns, or what it is awaited for; and the same with up to three responses of other calls first.

    @overload
    def remote(
        self: "DeploymentHandle[Callable[P, Coroutine[Any, Any, R]]]",
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, P], Coroutine[Any, Any, R]]]",
        first: DeploymentResponse[A],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, B, P], Coroutine[Any, Any, R]]]",
        first: A | DeploymentResponse[A],
        second: DeploymentResponse[B],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, B, C, P], Coroutine[Any, Any, R]]]",
        first: A | DeploymentResponse[A],
        second: B | DeploymentResponse[B],
        third: DeploymentResponse[C],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[P, R]]",
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, P], R]]",
        first: DeploymentResponse[A],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, B, P], R]]",
        first: A | DeploymentResponse[A],
        second: DeploymentResponse[B],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    @overload
    def remote(
        self: "DeploymentHandle[Callable[Concatenate[A, B, C, P], R]]",
        first: A | DeploymentResponse[A],
        second: B | DeploymentResponse[B],
        third: DeploymentResponse[C],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponse[R]: ...

    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        """Call the deployment; returns at once, with `stream=True` a DeploymentResponseGenerator.

        A top-level argument that is the response of another call is replaced by its result before the call is made.
        One inside of an argument goes by reference: the called code awaits it.

        Raises:
            SalverError: Nothing runs.
            Exception: An argument cannot be pickled.
        """
        session, context = self._begin(), current_request()
        options = self._options
        head = self._head(context, options.method_name, is_streaming=options.stream)
        call: Call | StreamingCall
        if options.stream:
            call = StreamingCall(session, self._deployment, head, args, kwargs)
        else:
            call = Call(session, self._deployment, head, args, kwargs, serialization=options.serialization)
        if options.prefer_local:
            call.hints = call.hints._replace(prefer_local=True)
        call.start(context)
        if isinstance(call, StreamingCall):
            return DeploymentResponseGenerator(call)
        if not options.by_reference:
            call.response.by_reference = False
        return call.response

    def broadcast(self, method_name: str, *args: Any, **kwargs: Any) -> DeploymentBroadcastResponse:
        """Call a method of every replica that runs; returns at once.

        It takes no place in the queue. A replica that is busy is called when it has room; one that starts meanwhile is
        not called.

        Raises:
            SalverError: Nothing runs.
            Exception: An argument cannot be pickled.
        """
        session, context = self._begin(), current_request()
        head = self._head(context, method_name)
        call = Call(session, self._deployment, head, args, kwargs, serialization=self._options.serialization)
        return DeploymentBroadcastResponse(Broadcast(session, call, context), session, call.request_id)

    def choose_replica(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[ReplicaSelection]:
        """Choose a replica as a call would, and keep a slot for one call there, within `async with`.

        It waits until a replica has room. A slot that no call was dispatched to is given back when the context is
        left, and when this process dies.

        Args:
            args: What the call will be made with, where that matters to the deployment's router.
            kwargs: Likewise.

        Raises:
            BackPressureError: Too many wait already.
            DeploymentUnavailableError: There is no replica, and none will come.
        """
        session = self._begin()
        head = self._head(current_request(), self._options.method_name)
        arguments = dumps((args, kwargs)) if args or kwargs else b""
        return chosen(session, Wish(self._deployment, head, arguments))

    def dispatch(self, selection: ReplicaSelection, *args: Any, **kwargs: Any) -> DeploymentResponse[Any]:
        """Call the replica that was chosen, in the slot that is kept there; returns at once.

        Awaiting the response raises `ReplicaUnavailableError` when the replica was gone before it was called.

        Raises:
            ValueError: The selection is a replica of another deployment.
            RuntimeError: It was dispatched to already, or its context was left.
        """
        session, context = self._begin(), current_request()
        head = self._head(context, self._options.method_name)
        reservation = selection.take(self._deployment)
        call = DispatchedCall(session, self._deployment, head, args, kwargs, reservation)
        call.start(context)
        return call.response

    def running_replicas_populated(self) -> bool:
        """Say whether this process knows a replica; it learns of them from the first call on, or from `_init`."""
        return self._life.knows_replicas()

    def shutdown(self) -> None:
        """End this handle and all that were made from it by `options`; further calls raise `RuntimeError`.

        What it has sent is answered. The connections of this process to the deployment are closed with its last handle
        that was used.
        """
        self._life.end()

    async def shutdown_async(self) -> None:
        """Do what `shutdown` does, and return when it is done."""
        await self._life.ended()

    def _init(self, **options: Any) -> None:
        """Set what cannot be changed later, and learn of the replicas; once, before the first call.

        Args:
            options: `_prefer_local_routing`: near replicas go first, on the caller's node and then in its zone.
                `_source` changes nothing.

        Raises:
            RuntimeError: It was called already, or the handle was used.
            TypeError: There is no such option.
        """
        self._life.initialize(options)
        self._options = self._options._replace(prefer_local=bool(options.get("_prefer_local_routing", False)))

    def _begin(self) -> Session:
        session = current_session()
        if not self._life.is_used:
            self._life.begin(session)
        return session

    def _head(self, context: RequestContext, method_name: str, *, is_streaming: bool = False) -> CallHead:
        options = self._options
        # By position, which is faster; None is the time that is left, which is known when the call is sent.
        return CallHead(
            method_name,
            context.request_id or request_ids.new(),
            context.route,
            self._deployment.app_name,
            options.multiplexed_model_id,
            None,
            options.session_id,
            context.urgency if options.priority is None else options.priority,
            is_streaming,
        )

    @overload
    def __getitem__(self, method: Callable[Concatenate[T_co, P], R]) -> "DeploymentHandle[Callable[P, R]]": ...

    @overload
    def __getitem__(self, method: BoundLater[M]) -> "DeploymentHandle[M]": ...

    def __getitem__(self, method: Any) -> "DeploymentHandle[Any]":
        """Return a handle that calls a method: `handle[Model.predict]` is `handle.predict`, and typed.

        Raises:
            TypeError: It is no method but, say, the name of one.
        """
        name = getattr(method, "__name__", None)
        if not isinstance(name, str) or isinstance(method, type):
            raise TypeError(
                f"handle[...] takes a method of the deployment's class, as in handle[Model.predict]; got {method!r}. "
                "For a method by name use `handle.predict` or `handle.options(method_name=...)`."
            )
        return self.options(method_name=name)

    def __getattr__(self, name: str) -> "DeploymentHandle[Any]":
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
