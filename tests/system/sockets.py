"""A FastAPI application with WebSockets, for their tests; in a module of its own, so that replicas import it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect

import salver as serve

api = FastAPI()


@serve.deployment(max_ongoing_requests=200, graceful_shutdown_timeout_s=10)
@serve.ingress(api)
class Hub:
    def __init__(self, version: int = 0) -> None:
        self.version = version
        self.running = 0
        self.cancelled = 0
        self.sent = 0
        self.taken = 0
        self.codes: list[int] = []
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        except WebSocketDisconnect as gone:
            self.codes.append(gone.code)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    @api.get("/state")
    async def state(self) -> dict[str, Any]:
        names = ("version", "running", "cancelled", "sent", "taken", "codes")
        return {"pid": os.getpid(), **{name: getattr(self, name) for name in names}}

    @api.post("/go-on")
    async def let_go_on(self) -> None:
        self.go_on.set()

    @api.websocket("/echo")
    async def echo(self, socket: WebSocket) -> None:
        async with self.counted():
            await socket.accept()
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"])
                await socket.send({**message, "type": "websocket.send"})

    @api.websocket("/talk/{name}")
    async def talk(self, socket: WebSocket, name: str) -> None:
        chosen = socket.scope["subprotocols"][-1:]
        await socket.accept(chosen[0] if chosen else None, headers=[(b"x-name", name.encode())])
        await socket.send_json(
            {
                "url": str(socket.url),
                "query": dict(socket.query_params),
                "root_path": socket.scope["root_path"],
                "id": socket.headers.get("x-request-id"),
                "version": self.version,
            }
        )
        await socket.receive_text()

    @api.websocket("/close/{code}")
    async def close(self, socket: WebSocket, code: int) -> None:
        await socket.accept()
        await socket.close(code, "as you wish")

    @api.websocket("/return")
    async def returns(self, socket: WebSocket) -> None:
        await socket.accept()

    @api.websocket("/raise/{when}")
    async def fail(self, socket: WebSocket, when: str) -> None:
        if when == "after":
            await socket.accept()
        raise ValueError("in the endpoint")

    @api.websocket("/deny/{how}")
    async def deny(self, socket: WebSocket, how: str) -> None:
        if how == "close":
            await socket.close()
        elif how == "raise":
            raise HTTPException(418, "short and stout")
        else:
            await socket.send_denial_response(Response("who are you?", 401, {"www-authenticate": "Basic"}))

    @api.websocket("/flood")
    async def flood(self, socket: WebSocket) -> None:
        async with self.counted():
            await socket.accept()
            while True:
                await socket.send_bytes(bytes(65_536))
                self.sent += 1

    @api.websocket("/busy")
    async def busy(self, socket: WebSocket) -> None:
        async with self.counted():
            await socket.accept()
            await self.go_on.wait()
            while True:
                self.taken += len(await socket.receive_bytes())
                await socket.send_text(str(self.taken))

    @api.websocket("/undecided")
    async def undecided(self, socket: WebSocket) -> None:
        async with self.counted():
            await asyncio.Event().wait()


@serve.deployment
async def plain() -> str:
    return "no ASGI"


app = Hub.bind()
