"""The systems that are measured, and how each is started."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from bench.asks import Ask, WrongAnswerError, check
from bench.results import Sample
from bench.running import ROOT, Served, free_port, serving

PEERS_AT = Path(os.environ.get("BENCH_PEERS", ROOT / ".venv-peers"))
_RAY_TUNED = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
}


class Server(Protocol):
    """Something that can be served."""

    def serve(self, ask: Ask) -> contextlib.AbstractContextManager[Served]:
        """Serve until the block ends; the first answer was right."""
        ...


@dataclass(frozen=True)
class Salver:
    """`salver run` of an application of `bench/apps.py`, or of another `module:application`."""

    app: str

    @contextlib.contextmanager
    def serve(self, ask: Ask) -> Iterator[Served]:
        """Serve it."""
        port = free_port()
        app = self.app if ":" in self.app else f"bench.apps:{self.app}"
        command = [sys.executable, "-m", "salver", "run", app, "--port", str(port)]
        with serving(command, port, partial(check, ask)) as served:
            yield served


@dataclass(frozen=True)
class SalverMany:
    """The no-op among other applications, each with a replica and a route."""

    applications: int

    @contextlib.contextmanager
    def serve(self, ask: Ask) -> Iterator[Served]:
        """Serve them."""
        port = free_port()
        command = [sys.executable, "-m", "bench.many", str(port), str(self.applications)]
        with serving(command, port, partial(check, ask)) as served:
            yield served


@dataclass(frozen=True)
class Uvicorn:
    """An ASGI application of `bench/bare_apps.py` under one uvicorn process, as fast as it goes."""

    app: str

    @contextlib.contextmanager
    def serve(self, ask: Ask) -> Iterator[Served]:
        """Serve it."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"bench.bare_apps:{self.app}", "--port", str(port)]
        command += ["--no-access-log", "--loop", "uvloop", "--http", "httptools", "--log-level", "warning"]
        with serving(command, port, partial(check, ask)) as served:
            yield served


@dataclass(frozen=True)
class Grpc:
    """grpc.aio sending bytes back, in the environment of the peer "grpc"."""

    @contextlib.contextmanager
    def serve(self, ask: Ask) -> Iterator[Served]:
        """Serve it."""
        port = free_port()
        command = [peer_python("grpc"), str(ROOT / "bench/peers/grpc_echo.py"), "serve", str(port)]
        with serving(command, port, _check_grpc) as served:
            yield served


def grpc_calls(port: int, *, concurrency: int, seconds: float) -> Sample:
    """Call the echo of `Grpc` from a process of its own."""
    script = str(ROOT / "bench/peers/grpc_echo.py")
    command = [peer_python("grpc"), script, "call", str(port), str(concurrency), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise WrongAnswerError(done.stderr.decode(errors="replace")[-500:])
    return msgspec.json.decode(done.stdout, type=Sample)


def _check_grpc(port: int) -> None:
    grpc_calls(port, concurrency=1, seconds=0)


@dataclass(frozen=True)
class Peer:
    """A workload on another serving system.

    Attributes:
        name: As in `PEERS`.
        app: Which of the peer's applications.
    """

    name: str
    app: str

    @contextlib.contextmanager
    def serve(self, ask: Ask) -> Iterator[Served]:
        """Serve it."""
        port = free_port()
        environment = {"PYTHONPATH": str(ROOT), **(_RAY_TUNED if self.name == "ray-tuned" else {})}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}
        with serving(self._command(port), port, partial(check, ask), environment) as served:
            yield served

    def _command(self, port: int) -> list[str]:
        python = peer_python(PEERS[self.name])
        if self.name == "bentoml":
            service = f"bench.peers.bentoml_apps:{self.app.capitalize()}"
            return [python, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
        return [python, "-m", f"bench.peers.{PEERS[self.name]}_apps", self.app, str(port)]


PEERS = {"ray-tuned": "ray", "ray": "ray", "litserve": "litserve", "bentoml": "bentoml"}
"""Which environment each peer runs in."""


def peer_python(environment: str) -> str:
    """Return the interpreter of an environment that `make bench-peers` makes."""
    return str(PEERS_AT / environment / "bin" / "python")


def is_installed(environment: str) -> bool:
    """Tell whether an environment is there."""
    return Path(peer_python(environment)).exists()
