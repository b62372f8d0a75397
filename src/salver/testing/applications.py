"""What a test calls: an application for as long as a block runs, and HTTP for clients that speak ASGI."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from salver.api.application import Application
from salver.api.driver import find_driver
from salver.api.verbs import delete, run, shutdown, start
from salver.handle import DeploymentHandle
from salver.runtime.ingress import AsgiApp, Receive, Scope, Send
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions
from salver.schema.ids import DEFAULT_APP_NAME
from salver.testing.http import HttpAsking
from salver.testing.instance import LocalInstance
from salver.testing.sockets import SocketAsking


@contextmanager
def local_app(
    app: Application,
    *,
    name: str = DEFAULT_APP_NAME,
    route_prefix: str | None = "/",
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
) -> Iterator[DeploymentHandle[Any]]:
    """Run an application inside this process for as long as the block runs; it gives the handle to its ingress.

    Blocks may lie in one another; the outermost ends with `serve.shutdown()`.

    Args:
        app: What `Deployment.bind()` returned.
        name: The application's name.
        route_prefix: Where HTTP requests find it; None for handles only.
        http_options: Options of the proxy, such as `root_path` and `request_timeout_s`; of the outermost block.

    Raises:
        Exception: What a constructor raised, as it is.
    """
    outermost = find_driver() is None
    try:
        if outermost:
            start(http_options=http_options, local_testing_mode=True)
        yield run(app, name=name, route_prefix=route_prefix, local_testing_mode=True)
    finally:
        if outermost:
            shutdown()
        else:
            delete(name)


def http_app() -> AsgiApp:
    """Return an ASGI application that stands for this process's proxy.

    Clients that speak ASGI, such as `TestClient` of FastAPI and Starlette and `httpx.ASGITransport`, reach all
    applications with it that run in local testing mode, under their route prefixes, as HTTP clients would.
    """
    return _answer


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    asking = HttpAsking if scope["type"] == "http" else SocketAsking
    instance = _instance()
    await asking(instance.site, instance.session.loop, scope).run(receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the client's lifespan; those of applications are their replicas' own."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _instance() -> LocalInstance:
    driver = find_driver()
    if driver is None or not isinstance(driver.instance, LocalInstance):
        raise SalverError(
            "http_app() needs an application in local testing mode: call serve.run(app, local_testing_mode=True), "
            "or use salver.testing.local_app(app)."
        )
    return driver.instance
