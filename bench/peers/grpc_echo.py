"""The baseline of handle calls: grpc.aio sends raw bytes there and back, client and server a process each.

`python grpc_echo.py serve PORT` and `python grpc_echo.py call PORT CONCURRENCY SECONDS`, which prints JSON.
"""

import asyncio
import json
import sys
import time
from statistics import median, quantiles
from typing import Any

import grpc.aio

METHOD = "/bench.Echo/echo"
PAYLOAD = bytes(range(256)) * 40


async def serve(port: int) -> None:
    """Send back what comes, until the process ends."""

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"echo": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def call(port: int, concurrency: int, seconds: float) -> dict[str, float]:
    """Return how many calls per second came back, and how long one took."""
    took_s: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary(METHOD)
        await echo(PAYLOAD, wait_for_ready=True, timeout=30)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(_repeat(echo, began + seconds, took_s))
        rate = len(took_s) / (time.perf_counter() - began)
    p99 = quantiles(took_s, n=100)[98] if len(took_s) > 1 else took_s[0]
    return {"rate": rate, "p50_us": median(took_s) * 1e6, "p99_us": p99 * 1e6}


async def _repeat(echo: Any, end: float, took_s: list[float]) -> None:
    while True:
        began = time.perf_counter()
        if await echo(PAYLOAD) != PAYLOAD:
            raise RuntimeError("the echo is not what was sent")
        now = time.perf_counter()
        took_s.append(now - began)
        if now >= end:
            return


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        print(json.dumps(asyncio.run(call(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))))
