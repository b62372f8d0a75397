"""What `handle.options(stream=True)` is to type checkers; at run time a DeploymentHandle, and nobody imports this."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from salver.handle.handle import DeploymentHandle
from salver.handle.handle_types import BoundLater, SomeOptions
from salver.handle.response import DeploymentResponse
from salver.handle.response_generator import DeploymentResponseGenerator

T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")


class StreamHandle(Protocol[T_co]):
    """Calls methods that are generators."""

    @property
    def deployment_name(self) -> str:
        """Return the name of the deployment it calls."""

    @property
    def app_name(self) -> str:
        """Return the application of the deployment it calls."""

    @property
    def is_initialized(self) -> bool:
        """Say whether calls can be made."""

    @overload
    def options(self, *, stream: Literal[True] | None = None, **options: Unpack[SomeOptions]) -> "StreamHandle[T_co]":
        """Return a handle that calls differently."""

    @overload
    def options(self, *, method_name: str, **options: Unpack[SomeOptions]) -> "StreamHandle[Any]":
        """Return a handle that calls another method."""

    @overload
    def options(self, *, stream: Literal[False], **options: Unpack[SomeOptions]) -> DeploymentHandle[T_co]:
        """Return a handle that calls methods that are no generators."""

    @overload
    def remote(
        self: "StreamHandle[Callable[P, AsyncIterator[R]]]", *args: P.args, **kwargs: P.kwargs
    ) -> DeploymentResponseGenerator[R]:
        """Call an `async def` generator."""

    @overload
    def remote(
        self: "StreamHandle[Callable[Concatenate[A, P], AsyncIterator[R]]]",
        first: DeploymentResponse[A],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponseGenerator[R]:
        """Call it with the response of another call."""

    @overload
    def remote(
        self: "StreamHandle[Callable[P, Iterator[R]]]", *args: P.args, **kwargs: P.kwargs
    ) -> DeploymentResponseGenerator[R]:
        """Call a plain generator."""

    @overload
    def remote(
        self: "StreamHandle[Callable[Concatenate[A, P], Iterator[R]]]",
        first: DeploymentResponse[A],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> DeploymentResponseGenerator[R]:
        """Call it with the response of another call."""

    @overload
    def __getitem__(self, method: Callable[Concatenate[T_co, P], R]) -> "StreamHandle[Callable[P, R]]":
        """Return a handle that calls a method."""

    @overload
    def __getitem__(self, method: BoundLater[M]) -> "StreamHandle[M]":
        """Return a handle that calls a decorated method."""

    def __getattr__(self, name: str) -> "StreamHandle[Any]": ...
