"""What the user's class is told of its place: its configuration and its rank, at the start and at each change."""

import asyncio
from dataclasses import replace
from typing import Any

from salver.lib.tracebacks import user_traceback
from salver.replica.user_code import UserCode
from salver.runtime.context import get_replica_context, set_replica_context
from salver.schema.errors import SalverError
from salver.schema.ids import ReplicaRank
from salver.schema.messages import Ranked


class Configuration:
    """Of one replica.

    Args:
        user_config: What `reconfigure` is called with.
    """

    def __init__(self, user_config: Any) -> None:
        self._user_config = user_config
        self._user_code: UserCode | None = None
        self._first: Ranked | None = None
        self._is_settled = asyncio.Event()
        self._changing = asyncio.Lock()

    async def rank(self) -> Ranked:
        """Return the first rank, once the controller has told it.

        Raises:
            SalverError: There will be none.
        """
        await self._is_settled.wait()
        if self._first is None:
            raise SalverError("The replica was told to end before it had a rank.")
        return self._first

    @property
    def told_rank(self) -> ReplicaRank | None:
        """Return the first rank, or None before it was told."""
        return None if self._first is None else self._first.rank

    def give_up(self) -> None:
        """Wait for no rank any more: who is not wanted may never be told one."""
        self._is_settled.set()

    async def begin(self, user_code: UserCode) -> None:
        """Configure user code that was constructed; what it raises fails the start."""
        await user_code.reconfigure(self._user_config, get_replica_context().rank, serves=False)
        self._user_code = user_code

    async def change_rank(self, ranked: Ranked) -> None:
        """Take a rank, the first one or another.

        Raises:
            SalverError: The user's `reconfigure` raised; the message is its traceback.
        """
        if self._first is None:
            self._first = ranked
            self._is_settled.set()
            return
        context = get_replica_context()
        set_replica_context(replace(context, rank=ranked.rank, world_size=ranked.world_size))
        if self._user_code is not None and ranked.rank != context.rank and self._user_code.takes_rank:
            await self._reconfigure(self._user_code)

    async def change_user_config(self, user_config: Any) -> None:
        """Take another configuration.

        Raises:
            SalverError: The user's `reconfigure` raised; the message is its traceback.
        """
        self._user_config = user_config
        if self._user_code is not None:
            await self._reconfigure(self._user_code)

    async def _reconfigure(self, user_code: UserCode) -> None:
        # One call at a time, each with what holds when it is made.
        async with self._changing:
            try:
                await user_code.reconfigure(self._user_config, get_replica_context().rank, serves=True)
            except Exception as error:
                raise SalverError(user_traceback(error)) from error
