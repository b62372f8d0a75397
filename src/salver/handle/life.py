"""What a handle and its copies by `options` share: whether they were used, and whether they may be."""

import asyncio
from typing import Any

from salver.handle.session import Session, current_session, find_session
from salver.schema.conversion import nearest
from salver.schema.ids import DeploymentID

_INIT_OPTIONS = ("_prefer_local_routing", "_source")


class Life:
    """From the first use to the end.

    Attributes:
        is_used: Calls were made, and more may be.
        is_over: No call may be made any more.
    """

    __slots__ = ("__weakref__", "_deployment", "_initialized", "is_over", "is_used")

    def __init__(self, deployment: DeploymentID) -> None:
        self._deployment = deployment
        self._initialized = False
        self.is_used = False
        self.is_over = False

    def begin(self, session: Session) -> None:
        """Count as a user of the deployment's router.

        Raises:
            RuntimeError: The handle was shut down.
        """
        if self.is_over:
            raise RuntimeError(
                f"This handle to {self._deployment} was shut down; serve.get_deployment_handle() makes another."
            )
        session.routers.use(self._deployment, self)
        self.is_used = True

    def initialize(self, options: dict[str, Any]) -> None:
        """Take options that are given once; see `DeploymentHandle._init`."""
        for name in options:
            if name not in _INIT_OPTIONS:
                raise TypeError(f"unexpected keyword '{name}' of _init().{nearest(name, _INIT_OPTIONS)}")
        if self._initialized or self.is_used or self.is_over:
            raise RuntimeError(
                f"_init() of the handle to {self._deployment} comes once and before its first call; "
                "get another handle for other options."
            )
        session = current_session()
        self._initialized = True
        session.loop.call_soon_threadsafe(session.routers.get, self._deployment)

    def knows_replicas(self) -> bool:
        """Say whether the router of the deployment knows a replica."""
        session = find_session()
        router = None if session is None else session.routers.find(self._deployment)
        return router is not None and router.num_replicas > 0

    def end(self) -> None:
        """Allow no more calls, and close the router if nobody else uses it."""
        self.is_used, self.is_over = False, True
        if (session := find_session()) is not None:
            session.loop.call_soon_threadsafe(session.routers.leave, self._deployment, self)

    async def ended(self) -> None:
        """Do what `end` does, and return when it is done."""
        self.end()
        if (session := find_session()) is not None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_nothing(), session.loop))


async def _nothing() -> None:
    """Come after all that the loop was told to do before."""
