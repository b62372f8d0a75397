"""`python -m bench.peers.ray_apps APP PORT`: serve one of the workloads with Ray Serve on loopback, until SIGINT.

The default data plane or the tuned one: that is up to RAY_SERVE_* variables, see `bench/contenders.py`.
"""

import asyncio
import importlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bench.work import CHUNKS, Answer, Question, answer

OPTIONS: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}


@serve.deployment(**OPTIONS)
class Noop:
    async def __call__(self, request: Request) -> str:
        return "ok"


api = FastAPI()


@serve.deployment(**OPTIONS)
@serve.ingress(api)
class Predict:
    @api.post("/predict")
    async def predict(self, question: Question) -> Answer:
        return answer(question)


@serve.deployment(**OPTIONS)
class Echo:
    async def __call__(self, body: bytes) -> bytes:
        return body


@serve.deployment(**OPTIONS)
class Chain:
    def __init__(self, echo: Any) -> None:
        self.echo = echo

    async def __call__(self, request: Request) -> Response:
        return Response(await self.echo.remote(await request.body()))


@serve.deployment(**OPTIONS)
class Stream:
    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        await asyncio.sleep(0)


APPS: dict[str, Any] = {
    "noop": Noop.bind,
    "predict": Predict.bind,
    "chain": lambda: Chain.bind(Echo.bind()),
    "stream": Stream.bind,
}


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        ray.init(
            include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=directory, num_cpus=2, log_to_driver=False
        )
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        serve.run(APPS[name](), route_prefix="/")
        signal.sigwait([signal.SIGINT])
        ray.shutdown()


if __name__ == "__main__":
    # Under the module's own name, which is where replicas look the classes up.
    module = importlib.import_module("bench.peers.ray_apps")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    module.main()
