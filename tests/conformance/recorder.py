"""The application behind the conformance tests, and a look at what it was asked."""

import json
import os
from typing import Any, NamedTuple

APP = '''
    import asyncio, json, os
    from urllib.parse import parse_qs

    import salver as serve

    seen = []
    running = set()

    def answer(status, body, *headers):
        headers = [(b"content-type", b"text/plain"), *headers]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        return start, {"type": "http.response.body", "body": body}

    async def read(receive):
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False):
                return body

    async def recorder(scope, receive, send):
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/seen":
            messages = answer(200, json.dumps({"pid": os.getpid(), "seen": seen, "running": len(running)}).encode())
            seen.clear()
        elif path == "/big":
            return await big(scope, send)
        else:
            messages = await record(scope, receive)
        for message in messages:
            await send(message)

    async def record(scope, receive):
        query = scope["query_string"].decode("latin-1")
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        entry = {"method": scope["method"], "path": scope["path"], "query": query, "headers": headers, "body": None}
        seen.append(entry)
        running.add(id(entry))
        try:
            body = await read(receive)
            entry["body"] = None if body is None else body.decode("latin-1")
            if scope["path"].startswith("/status/"):
                return answer(int(scope["path"][8:]), b"twelve bytes")
            if scope["path"] == "/wait":
                await asyncio.Event().wait()
            return answer(200, scope["path"].encode())
        finally:
            running.discard(id(entry))

    async def big(scope, send):
        """Send as many mebibytes as the query says."""
        key = object()
        running.add(key)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(16 * int(parse_qs(scope["query_string"].decode())["mib"][0])):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            running.discard(key)

    @serve.deployment(max_ongoing_requests=200)
    @serve.ingress(recorder)
    class Recorder:
        pass

    app = Recorder.bind()
'''


class Seen(NamedTuple):
    """A request that reached the application whole: method, target and body."""

    method: str
    target: str
    body: bytes = b""


class Record(NamedTuple):
    """What the application was asked since the last look.

    Attributes:
        pid: The replica's process.
        seen: Requests as the application got them; the body is None where it never ended.
        running: Handlers that have not ended.
    """

    pid: int
    seen: list[dict[str, Any]]
    running: int

    @property
    def whole(self) -> list[Seen]:
        """Return those whose body ended."""
        return [_seen(each) for each in self.seen if each["body"] is not None]

    @property
    def broken(self) -> list[Seen]:
        """Return those whose body never ended."""
        return [_seen(each) for each in self.seen if each["body"] is None]


def _seen(entry: dict[str, Any]) -> Seen:
    target = entry["path"] + ("?" + entry["query"] if entry["query"] else "")
    return Seen(entry["method"], target, (entry["body"] or "").encode("latin-1"))


def record_of(text: bytes) -> Record:
    """Return what the application's own page says."""
    return Record(**json.loads(text))


def open_descriptors(pid: int) -> int:
    """Return how many file descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_bytes(pid: int) -> int:
    """Return the memory that belongs to a process alone."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file.readlines()[1:])
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))
