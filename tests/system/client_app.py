"""The application that real clients talk to."""

APP = """
    import asyncio
    import os
    from pathlib import Path

    import salver as serve
    from fastapi import FastAPI, Request, UploadFile, Form
    from fastapi.responses import HTMLResponse, StreamingResponse
    from pydantic import BaseModel

    api = FastAPI()

    class Number(BaseModel):
        x: int

    @api.get("/hello")
    async def hello(q: str):
        return f"hello {q}"

    @api.head("/hello")
    async def hello_head(q: str):
        return f"hello {q}"

    @api.post("/json")
    async def double(number: Number):
        return {"y": 2 * number.x}

    @api.post("/upload")
    async def upload(file: UploadFile, name: str = Form()):
        return {"name": name, "size": len(await file.read())}

    @api.post("/size")
    @api.put("/size")
    async def size(request: Request):
        return sum([len(chunk) async for chunk in request.stream()])

    @api.get("/stream")
    async def stream(size: int):
        async def chunks():
            for start in range(0, size, 50_000):
                yield b"x" * min(50_000, size - start)
                await asyncio.sleep(0)
        return StreamingResponse(chunks())

    @api.get("/events")
    async def events():
        async def lines():
            for number in range(3):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.01)
        return StreamingResponse(lines(), media_type="text/event-stream")

    @api.get("/folder/")
    async def folder():
        return "folder"

    @api.get("/page")
    async def page():
        return HTMLResponse(Path(os.environ["PAGE"]).read_text())

    reports = []

    @api.post("/report")
    async def report(request: Request):
        reports.append((await request.body()).decode())

    @api.get("/reported")
    async def reported():
        return reports[0] if reports else ""

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(api)
    class Api:
        pass

    app = Api.bind()
"""
