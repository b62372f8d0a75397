"""The workloads: which systems do what, and under which load."""

import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import msgspec

from bench.asks import EVENTS, NOTHING_MUCH, POSTED, POSTED_EVENTS, PRICE, SOME_CALLS, THROUGH_CHAIN, Ask, check
from bench.contenders import Grpc, Peer, Salver, SalverMany, Server, Uvicorn, grpc_calls
from bench.results import Sample
from bench.wrk import LoadFailedError, wrk

IDLE = 1000
Load = Callable[[Ask, int, float], Sample]
"""Puts load on a port for some seconds."""


@dataclass(frozen=True)
class Workload:
    """Work that several systems do turn by turn.

    Attributes:
        systems: By name; the first one is the baseline of the chart.
        load: How each is loaded, unless `loads` has its own.
        asks: What is asked of those that cannot be asked the same.
        peers: Which peers do it too, and the name of their application.
        needs: The environment in `.venv-peers` without which nothing can be compared.
    """

    key: str
    title: str
    ask: Ask
    systems: Mapping[str, Server]
    load: Load
    peers: Mapping[str, str] = field(default_factory=dict)
    loads: Mapping[str, Load] = field(default_factory=dict)
    asks: Mapping[str, Ask] = field(default_factory=dict)
    needs: str | None = None

    def load_of(self, system: str) -> Load:
        """Return how a system is loaded."""
        return self.loads.get(system, self.load)

    def ask_of(self, system: str) -> Ask:
        """Return what a system is asked."""
        return self.asks.get(system, self.ask)

    def groups(self, peers: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Server]]]:
        """Yield what runs side by side: the own systems alone, then with one peer at a time."""
        yield "", dict(self.systems)
        for peer in peers:
            if peer in self.peers:
                yield peer, {**self.systems, peer: Peer(peer, self.peers[peer])}


def _wrk(connections: int = 64) -> Load:
    return lambda ask, port, seconds: wrk(ask, port, connections=connections, seconds=seconds)


def _calls(concurrency: int) -> Load:
    """Return a load that has `bench.apps:caller` call its other deployment."""

    def load(ask: Ask, port: int, seconds: float) -> Sample:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds + 30)
        connection.request("GET", f"/?concurrency={concurrency}&seconds={seconds}")
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != http.client.OK:
            raise LoadFailedError(f"the caller answered {response.status}: {body[:500]!r}")
        return msgspec.json.decode(body, type=Sample)

    return load


def _grpc(concurrency: int) -> Load:
    return lambda ask, port, seconds: grpc_calls(port, concurrency=concurrency, seconds=seconds)


def _beside_idle(ask: Ask, port: int, seconds: float) -> Sample:
    with _idle_connections(port):
        return wrk(ask, port, connections=64, seconds=seconds)


@contextmanager
def _idle_connections(port: int) -> Iterator[None]:
    """Hold connections that have had one answer each and are still open in the end."""
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(IDLE)]
        for sock in idle:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            if b"200 OK" not in sock.recv(65536):
                raise LoadFailedError("an idle connection got no 200 for its only request")
        yield
        for sock in idle:
            sock.setblocking(False)
            try:
                ended = sock.recv(1) == b""
            except BlockingIOError:
                ended = False
            if ended:
                raise LoadFailedError("an idle connection was closed meanwhile")


_NOOP: dict[str, Server] = {"uvicorn": Uvicorn("noop"), "salver": Salver("noop")}
_ALL = ("ray-tuned", "ray", "litserve", "bentoml")
_RAY = ("ray-tuned", "ray")


def _noop(key: str, title: str, connections: int) -> Workload:
    # These two take nothing but POST.
    asks = dict.fromkeys(("litserve", "bentoml"), POSTED)
    return Workload(key, title, NOTHING_MUCH, _NOOP, _wrk(connections), dict.fromkeys(_ALL, "noop"), asks=asks)


def _ways(many: int) -> dict[str, Server]:
    return {"salver": SalverMany(1), f"salver, {many}": SalverMany(many)}


def _handle(key: str, title: str, concurrency: int) -> Workload:
    systems: dict[str, Server] = {"grpc.aio": Grpc(), "salver": Salver("caller")}
    loads = {"grpc.aio": _grpc(concurrency)}
    return Workload(key, title, SOME_CALLS, systems, _calls(concurrency), loads=loads, needs="grpc")


_LIST = (
    _noop("noop", "no-op, c=64", 64),
    _noop("noop_c1", "no-op, c=1", 1),
    Workload(
        "fastapi",
        "FastAPI + pydantic POST, c=64",
        PRICE,
        {"uvicorn": Uvicorn("predict"), "salver": Salver("predict"), "salver, 2 replicas": Salver("predict_two")},
        _wrk(),
        dict.fromkeys(_ALL, "predict"),
    ),
    Workload(
        "plain",
        "plain def in a thread, c=64",
        NOTHING_MUCH,
        {"salver, async def": Salver("noop"), "salver": Salver("plain")},
        _wrk(),
    ),
    Workload(
        "chain",
        "chain of two, 10 KB body, c=64",
        THROUGH_CHAIN,
        {"salver": Salver("chain")},
        _wrk(),
        dict.fromkeys(_RAY, "chain"),
    ),
    Workload(
        "sse",
        "SSE, 50 chunks, c=64",
        EVENTS,
        {"uvicorn": Uvicorn("stream"), "salver": Salver("stream")},
        _wrk(),
        dict.fromkeys(_ALL, "stream"),
        asks=dict.fromkeys(("litserve", "bentoml"), POSTED_EVENTS),
    ),
    Workload(
        "sse_chain",
        "SSE, 50 chunks from a second deployment, c=64",
        EVENTS,
        {"salver, one deployment": Salver("stream"), "salver": Salver("stream_chain")},
        _wrk(),
    ),
    _handle("handle", "handle calls, 10 KB both ways, 64 at once", 64),
    _handle("handle_c1", "handle calls, 10 KB both ways, one at a time", 1),
    Workload(
        "idle",
        "no-op, c=64, beside 1,000 idle connections",
        NOTHING_MUCH,
        {"salver, alone": Salver("noop"), "salver": Salver("noop")},
        _wrk(),
        loads={"salver": _beside_idle},
    ),
    Workload("apps64", "no-op, c=64, 1 → 64 applications", NOTHING_MUCH, _ways(64), _wrk()),
    Workload("routes200", "no-op, c=64, 1 → 200 routes", NOTHING_MUCH, _ways(200), _wrk()),
)
WORKLOADS = {workload.key: workload for workload in _LIST}


def is_right(workload: Workload, system: str, port: int) -> None:
    """Check an answer of a system once; what calls by itself has checked each."""
    if not isinstance(workload.systems.get(system), Grpc):
        check(workload.ask_of(system), port)
