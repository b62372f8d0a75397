"""Choosing a replica before calling it: a slot is reserved there, and a later call takes it.

A reservation is routed as a request is, so that limits, queues and dead replicas are dealt with in one place. The
replica then holds the slot for this connection, as it does for a refused caller (docs/design/0002): it is given back
when it is not used, and when this process dies.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from salver.handle.call import Call
from salver.handle.channel import Channel
from salver.handle.outgoing import Description, Hints, Outgoing, Way
from salver.handle.response import running_loop
from salver.handle.router import Router
from salver.handle.session import Session
from salver.schema.errors import ReplicaUnavailableError, SalverError
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.topics import ReplicaEntry
from salver.transport.codec import loads
from salver.transport.wire import RESERVE, RESERVED, CallHead

if TYPE_CHECKING:
    import concurrent.futures


class Wish(NamedTuple):
    """For what a slot is wanted.

    Attributes:
        head: Of the call.
        arguments: What the choice may depend on, pickled; nothing where there is none.
    """

    deployment: DeploymentID
    head: CallHead
    arguments: bytes = b""


class Reservation(Outgoing):
    """A slot at a replica, from the wish for it to its use or return; lives on the session's loop.

    Args:
        head: Of the call that it is meant for.
        granted: Gets the channel of the replica that holds the slot.
        arguments: What the choice may depend on, pickled; nothing where there is none.
    """

    __slots__ = ("_arguments", "_granted", "_head", "_router", "_used", "granted")

    def __init__(
        self, router: Router, head: CallHead, granted: asyncio.Future[Channel], arguments: bytes = b""
    ) -> None:
        super().__init__()
        self.hints = Hints(head.multiplexed_model_id, head.session_id, head.urgency)
        self.granted = granted
        self._head = head
        self._arguments = arguments
        self._router = router
        self._granted = False
        self._used = False

    def release(self) -> None:
        """Give up the wish or the slot, unless a call has it."""
        if self._used:
            return
        self._used = True
        if self._granted and self.channel is not None:
            self.channel.give_back(self)
        elif not self._granted:
            self._router.cancel(self)

    # Way: the one call that gets the slot

    def route(self, outgoing: Outgoing) -> None:
        """Send a call in the slot; part of Way."""
        channel = self.channel
        assert channel is not None, "nobody has a selection before the slot is granted"
        if self._used or channel.closed:
            outgoing.abandoned = True
            outgoing.on_refused(ReplicaUnavailableError(channel.entry.replica))
            return
        self._used = True
        outgoing.order = self.order
        channel.use_reserved(self, outgoing)

    def cancel(self, outgoing: Outgoing) -> None:
        """Stop the call; part of Way."""
        self._router.cancel(outgoing)

    # Outgoing

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Ask for a slot; part of Outgoing."""
        channel.connection.send(RESERVE, stream, flags=flags)

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Take note that the slot is ours; part of Outgoing."""
        if kind == RESERVED and self.channel is not None:
            self._granted = True
            if not self.granted.done():
                self.granted.set_result(self.channel)

    def may_repeat(self) -> bool:
        """A slot that was not granted may be asked for elsewhere; part of Outgoing."""
        return not self._granted

    def on_lost(self, replica: str) -> None:
        """The replica is gone, and the slot with it: the call will find its channel closed; part of Outgoing."""
        if not self.granted.done() and self.channel is not None:
            self.granted.set_exception(ReplicaUnavailableError(self.channel.entry.replica))

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        if not self.granted.done():
            self.granted.set_exception(error)

    def describe(self) -> Description:
        """Part of Outgoing."""
        return Description(self._head.request_id, self._head.method, self._head.route)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part of Outgoing."""
        args, kwargs = loads(self._arguments) if self._arguments else ((), {})
        return args, kwargs


@dataclass(frozen=True, eq=False)
class ReplicaSelection:
    """A replica that was chosen, with a slot reserved there; made by `DeploymentHandle.choose_replica`.

    Attributes:
        replica_id: Which one.
        address: Where callers reach it.
        node_id: The node it runs on.
        node_ip: That node's address; None on a machine of its own.
        port: Its TCP port; None where it listens on a Unix socket.
        availability_zone: The node's zone, or None.
        replica_metadata: What the replica says of itself.
    """

    replica_id: ReplicaID
    address: str
    node_id: str
    node_ip: str | None = None
    port: int | None = None
    availability_zone: str | None = None
    replica_metadata: dict[str, Any] = field(default_factory=dict)
    _reservation: Reservation | None = field(default=None, repr=False)
    _state: dict[str, bool] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, entry: ReplicaEntry, reservation: Reservation) -> "ReplicaSelection":
        """Return the selection of a replica."""
        return cls(entry.replica, entry.address, entry.node_id, _reservation=reservation)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of the replica, as JSON values."""
        return {
            "replica_id": str(self.replica_id),
            "address": self.address,
            "node_id": self.node_id,
            "node_ip": self.node_ip,
            "port": self.port,
            "availability_zone": self.availability_zone,
            "replica_metadata": self.replica_metadata,
        }

    def take(self, deployment: DeploymentID) -> Reservation:
        """Return the slot for the one call that is dispatched to it.

        Raises:
            ValueError: It is a replica of another deployment.
            RuntimeError: It was used already, or its `async with` was left.
        """
        if self.replica_id.deployment_id != deployment:
            raise ValueError(
                f"The selection is a replica of {self.replica_id.deployment_id}, and the handle calls {deployment}."
            )
        if self._state.get("left") or self._reservation is None:
            raise RuntimeError("dispatch() was called after the `async with` of its choose_replica() was left.")
        if self._state.get("dispatched"):
            raise RuntimeError("A selection can be dispatched to once; choose a replica again for the next call.")
        self._state["dispatched"] = True
        return self._reservation

    def leave(self) -> None:
        """The context of the selection is left; nothing can be dispatched to it any more."""
        self._state["left"] = True


class DispatchedCall(Call):
    """A call in a reserved slot."""

    __slots__ = ("_reservation",)

    def __init__(
        self,
        session: Session,
        deployment: DeploymentID,
        head: CallHead,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reservation: Reservation,
    ) -> None:
        super().__init__(session, deployment, head, args, kwargs)
        self._reservation = reservation

    def _way(self) -> Way:
        return self._reservation


@asynccontextmanager
async def chosen(session: Session, wish: Wish) -> AsyncIterator[ReplicaSelection]:
    """Reserve a slot at a replica, for as long as the context lasts or until a call takes it."""
    reservation = await _reserved(session, wish)
    channel = reservation.granted.result()
    selection = ReplicaSelection.of(channel.entry, reservation)
    try:
        yield selection
    finally:
        selection.leave()
        if running_loop() is session.loop:
            reservation.release()
        else:
            session.loop.call_soon_threadsafe(reservation.release)


async def _reserve(session: Session, wish: Wish) -> Reservation:
    router = session.routers.get(wish.deployment)
    reservation = Reservation(router, wish.head, asyncio.get_running_loop().create_future(), wish.arguments)
    router.route(reservation)
    try:
        await reservation.granted
    except BaseException:
        reservation.release()
        raise
    return reservation


async def _reserved(session: Session, wish: Wish) -> Reservation:
    """Reserve a slot from any loop."""
    if running_loop() is session.loop:
        return await _reserve(session, wish)
    reserving = asyncio.run_coroutine_threadsafe(_reserve(session, wish), session.loop)
    try:
        return await asyncio.wrap_future(reserving)
    except asyncio.CancelledError:
        # The slot may just have been granted.
        reserving.add_done_callback(_release_unwanted)
        raise


def _release_unwanted(reserving: "concurrent.futures.Future[Reservation]") -> None:
    if not reserving.cancelled() and reserving.exception() is None:
        reservation = reserving.result()
        reservation.granted.get_loop().call_soon_threadsafe(reservation.release)
