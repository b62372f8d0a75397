"""A network without a loop: real routers and channels on one side, real admissions on the other, frames in between.

Nothing moves by itself. A test, or hypothesis, says which connection carries its next frame and which request ends.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from random import Random
from typing import Any, cast

from salver.handle.channel import Channel
from salver.handle.outgoing import Description, Hints, Outgoing
from salver.handle.policies.locality import Place
from salver.handle.request_router.api import PendingRequest, RunningReplica
from salver.handle.request_router.custom import CustomRouting, Groups
from salver.handle.router import Router
from salver.lib.tasks import Tasks
from salver.replica.admission import Admission
from salver.schema.application import ImportedCode, RouterSpec
from salver.schema.errors import Disconnected, ProtocolError, SalverError
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.topics import ReplicaEntry, Replicas
from salver.transport.framing import FrameConnection, FrameSink
from salver.transport.wire import CALL, CANCEL, HELD, PASS, REJECT, RESERVE, RESERVED, RESULT, ROOM, WAIT

DEPLOYMENT = DeploymentID("model", "shop")
NOWHERE = Place()
USER_CODE = RouterSpec(code=ImportedCode("routers", "Own"))
"""What a snapshot says where the test's `UserCode` chooses."""

Frame = tuple[int, int, int, int, bytes, bytes]


class Request(Outgoing):
    """A request that remembers what became of it.

    Attributes:
        outcome: "waits" until it is settled, then "answered", "lost" or "refused".
        runs: How often user code was given it.
    """

    __slots__ = ("args", "error", "idempotent", "name", "outcome", "runs", "too_large")

    def __init__(
        self,
        name: str = "",
        *,
        idempotent: bool = False,
        too_large: bool = False,
        hints: Hints | None = None,
        args: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.args = args
        if hints is not None:
            self.hints = hints
        self.idempotent = idempotent
        self.too_large = too_large
        self.outcome = "waits"
        self.error: SalverError | str | None = None
        self.runs = 0

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        """Part of Outgoing."""
        if self.too_large:
            raise ProtocolError("too large")
        end = cast("End", channel.connection)
        end.requests[stream] = self
        end.send(CALL, stream, flags=flags)

    def describe(self) -> Description:
        """Part of Outgoing."""
        return Description(self.name)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part of Outgoing."""
        return self.args, {}

    def on_frame(self, kind: int, flags: int, load: int, header: bytes, body: bytes) -> None:
        """Part of Outgoing."""
        assert kind == RESULT
        self._settle("answered", None)

    def may_repeat(self) -> bool:
        """Part of Outgoing."""
        return self.idempotent

    def on_lost(self, replica: str) -> None:
        """Part of Outgoing."""
        self._settle("lost", replica)

    def on_refused(self, error: SalverError) -> None:
        """Part of Outgoing."""
        self._settle("refused", error)

    def _settle(self, outcome: str, error: SalverError | str | None) -> None:
        assert self.outcome == "waits", f"{self.name} was {self.outcome}, and now {outcome}"
        assert not self.abandoned or outcome == "refused", f"{self.name} was cancelled, and now {outcome}"
        self.outcome = outcome
        self.error = error

    def __repr__(self) -> str:
        return f"Request({self.name!r}, {self.outcome})"


class End:
    """One end of a connection, and the frames that were sent there and are under way."""

    def __init__(self, sink: FrameSink) -> None:
        self.sink = sink
        self.other: End
        self.under_way: deque[Frame] = deque()
        self.requests: dict[int, Request] = {}
        self.closed = False
        self.broken = False

    def send(
        self, kind: int, stream: int, header: bytes = b"", body: bytes = b"", flags: int = 0, load: int = 0
    ) -> None:
        """Part of FrameConnection."""
        if not self.closed:
            self.under_way.append((kind, flags, stream, load, header, body))

    def close(self) -> None:
        """Part of FrameConnection; the other end learns of it after what is under way."""
        self.closed = True

    def carry(self) -> bool:
        """Deliver the next frame, or the news that the connection is closed; say whether there was any."""
        if self.under_way:
            kind, flags, stream, load, header, body = self.under_way.popleft()
            if not self.other.closed and not self.other.broken:
                self.other.sink.on_frame(kind, flags, stream, load, header, body)
            return True
        if self.closed and not self.broken:
            self.cut()
            return True
        return False

    def cut(self) -> None:
        """Break the connection; what is under way is lost."""
        for end in (self, self.other):
            if not end.broken:
                end.closed = end.broken = True
                end.under_way.clear()
                end.sink.on_closed(None)


class ReplicaEnd:
    """A replica's side of one connection, as in replica/server.py."""

    def __init__(self, replica: "Replica") -> None:
        self.replica = replica
        self.end: End

    def on_opened(self, connection: FrameConnection) -> None:
        """Part of FrameSink."""
        self.end = cast("End", connection)

    def on_frame(self, kind: int, flags: int, stream: int, load: int, header: bytes, body: bytes) -> None:
        """Part of FrameSink."""
        admission = self.replica.admission
        if kind == CALL:
            if not admission.enter(self, held=bool(flags & HELD)):
                self.end.send(REJECT, stream, load=admission.taken)
                return
            request = self.end.other.requests[stream]
            request.runs += 1
            assert request.runs == 1 or request.idempotent, f"{request} was run twice"
            self.replica.running.append((self, stream))
            self.replica.most = max(self.replica.most, len(self.replica.running))
        elif kind == CANCEL and (self, stream) in self.replica.running:
            self.replica.running.remove((self, stream))
            admission.leave()
        elif kind == RESERVE:
            answer = RESERVED if admission.reserve(self, held=bool(flags & HELD)) else REJECT
            self.end.send(answer, stream, load=admission.taken)
        elif kind == PASS:
            admission.give_up(self)
        elif kind == WAIT and not admission.wait(self):
            self.end.send(REJECT, 0, load=admission.taken)

    def on_closed(self, error: Exception | None) -> None:
        """Part of FrameSink."""
        for each in [each for each in self.replica.running if each[0] is self]:
            self.replica.running.remove(each)
            self.replica.admission.leave()
        self.replica.admission.forget(self)


class Replica:
    """A replica with a real admission, whose requests end when they are told to.

    Attributes:
        most: The most requests it ever ran at once.
        retired: Callers are not told of it any more.
    """

    def __init__(self, name: str, limit: int, node_id: str = "node", zone: str = "") -> None:
        self.id = ReplicaID(name, DEPLOYMENT)
        self.node_id = node_id
        self.zone = zone
        self.limit = limit
        self.admission: Admission[ReplicaEnd] = Admission(limit, lambda each: each.end.send(ROOM, 0))
        self.running: list[tuple[ReplicaEnd, int]] = []
        self.most = 0
        self.alive = True
        self.retired = False

    @property
    def entry(self) -> ReplicaEntry:
        """Return what callers are told of it."""
        return ReplicaEntry(self.id, self.id.unique_id, self.node_id, self.limit, availability_zone=self.zone)

    def finish(self, index: int = 0) -> None:
        """End a running request."""
        caller, stream = self.running.pop(index)
        caller.end.send(RESULT, stream, load=self.admission.taken - 1)
        self.admission.leave()


class Pause:
    """What user code may wait for while it chooses: somebody lets it go on."""

    def __await__(self) -> Any:
        yield


class Dialling(Tasks):
    """Runs a coroutine when it is told to; those of channels never wait."""

    def __init__(self) -> None:
        super().__init__(on_error=lambda _name, _error: None)
        self.pending: list[Coroutine[Any, Any, Any]] = []
        self.at_once = True

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> Any:
        """Part of Tasks."""
        self.pending.append(work)
        if self.at_once:
            self.go_on()

    def go_on(self) -> None:
        """Run what was started, and what that starts, to its end."""
        while self.pending:
            self.step()

    def step(self) -> None:
        """Let whoever has waited longest go on until it waits again, or ends."""
        work = self.pending.pop(0)
        with suppress(StopIteration):
            work.send(None)
            self.pending.append(work)

    def forget(self) -> None:
        """Never run what was started and not run yet."""
        for work in self.pending:
            work.close()


Choose = Callable[[list[RunningReplica], PendingRequest], Groups | None]


class UserCode:
    """A `Chooser` without a thread.

    Attributes:
        choices: What it was asked: replicas and request ids.
        hooks: What it was told: hooks and the first of their arguments.
        complaints: What was wrong with its answers.
    """

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.max_tasks = 4
        self.choices: list[tuple[list[str], str]] = []
        self.hooks: list[tuple[str, Any]] = []
        self.complaints: list[str] = []
        self.closed = False

    async def choose(self, replicas: list[RunningReplica], request: PendingRequest) -> Groups | None:
        """Part of Chooser."""
        self.choices.append(([each.replica_id.unique_id for each in replicas], request.metadata.request_id))
        await Pause()
        return self._choose(replicas, request)

    def complain(self, kind: str, problem: str) -> None:
        """Part of Chooser."""
        self.complaints.append(kind)

    def update(self, replicas: Mapping[ReplicaID, RunningReplica]) -> None:
        """Part of Chooser."""

    def hook(self, name: str, *args: Any) -> None:
        """Part of Chooser."""
        self.hooks.append((name, args[0]))

    def close(self) -> None:
        """Part of Chooser."""
        self.closed = True


class Net:
    """Replicas, callers, and the connections between them."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.ends: list[End] = []
        self.tasks = Dialling()

    def replica(self, name: str, limit: int = 1, node_id: str = "node", zone: str = "") -> Replica:
        """Start a replica."""
        self.replicas[name] = Replica(name, limit, node_id, zone)
        return self.replicas[name]

    def kill(self, replica: Replica) -> None:
        """End a replica: its connections break, nobody can dial it."""
        replica.alive = False
        for end in self.ends:
            if isinstance(end.sink, ReplicaEnd) and end.sink.replica is replica:
                end.cut()

    def router(
        self,
        random: Random | None = None,
        place: Place = NOWHERE,
        user_code: UserCode | None = None,
    ) -> Router:
        """Return a caller's router."""

        def open_channel(entry: ReplicaEntry, router: Router) -> Channel:
            return Channel(entry, router, self.tasks, b"", cast("Any", self.dial))

        def run_custom(_spec: RouterSpec, router: Router) -> CustomRouting:
            assert user_code is not None
            return CustomRouting(user_code, router, self.tasks)

        # Time stands still: how many retries may be paid for must not depend on how busy the machine is.
        return Router(
            DEPLOYMENT, open_channel, random or Random(1), now=lambda: 0.0, place=place, run_custom=run_custom
        )

    async def dial(self, address: str, sink: FrameSink) -> Any:
        """Part of a transport."""
        replica = self.replicas[address]
        if not replica.alive:
            raise Disconnected("nobody listens")
        far_sink = ReplicaEnd(replica)
        near, far = End(sink), End(far_sink)
        near.other, far.other = far, near
        self.ends += [near, far]
        far_sink.on_opened(cast("FrameConnection", far))
        sink.on_opened(cast("FrameConnection", near))
        return near

    def snapshot(self, **fields: Any) -> Replicas:
        """Return the living replicas as the controller tells them."""
        told = [each for each in self.replicas.values() if each.alive and not each.retired]
        return Replicas(replicas=tuple(each.entry for each in told), **fields)

    def settle(self) -> None:
        """Carry all frames until none is under way."""
        while sum(end.carry() for end in self.ends):
            pass

    def run_out(self) -> None:
        """Carry all frames and end all requests until nothing moves."""
        moving = True
        while moving:
            self.settle()
            running = [each for each in self.replicas.values() if each.running]
            for replica in running:
                replica.finish()
            moving = bool(running)


class Sequence(Random):
    """Draws what it is told, again and again."""

    def __init__(self, *draws: float) -> None:
        super().__init__()
        self._draws = deque(draws)

    def random(self) -> float:
        """Part of Random."""
        self._draws.rotate(-1)
        return self._draws[-1]


def routed(router: Router, *names: str) -> list[Request]:
    """Route requests."""
    requests = [Request(name) for name in names]
    for request in requests:
        router.route(request)
    return requests


def outcomes(requests: list[Request]) -> list[str]:
    """Return what became of requests."""
    return [request.outcome for request in requests]


def running(replica: Replica) -> list[str]:
    """Return the names of the requests that a replica runs."""
    return [end.end.other.requests[stream].name for end, stream in replica.running]
