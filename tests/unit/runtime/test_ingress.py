"""`@ingress`: what is remembered of an application, and how its endpoints are bound."""

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from salver.runtime.ingress import NotPicklable, ingress, ingress_of

importable = FastAPI()


async def _get(app: Any, path: str) -> tuple[int, str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        response = await client.get(path)
        return response.status_code, response.text


def _application(instance: Any) -> Any:
    remembered = ingress_of(type(instance))
    assert remembered is not None
    return remembered.application(instance)


async def test_methods_are_bound_at_any_depth_of_routers() -> None:
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")

    class Base:
        value = 1

        @app.get("/app")
        def of_app(self) -> int:
            return self.value

        @inner.get("/method")
        async def of_inner(self, add: int = 0) -> int:
            return self.value + add

    outer.include_router(inner)
    app.include_router(outer)

    @ingress(app)
    class Api(Base):
        value = 2

    bound = _application(Api())
    assert await _get(bound, "/app") == (200, "2")
    assert await _get(bound, "/outer/inner/method?add=3") == (200, "5")


async def test_methods_of_another_class_are_left_out() -> None:
    app = FastAPI()

    @ingress(app)
    class First:
        @app.get("/first")
        def first(self) -> str:
            return "first"

    @ingress(app)
    class Second:
        @app.get("/second")
        def second(self) -> str:
            return "second"

    bound = _application(Second())
    assert await _get(bound, "/second") == (200, '"second"')
    assert (await _get(bound, "/first"))[0] == 404


async def test_plain_starlette_routes_and_mounts_work() -> None:
    class Pages:
        def page(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse(f"page of {type(self).__name__}")

    app = Starlette(routes=[Route("/page", Pages.page), Mount("/sub", Starlette(routes=[Route("/page", Pages.page)]))])
    decorated = ingress(app)(Pages)
    bound = _application(decorated())
    assert await _get(bound, "/page") == (200, "page of Pages")
    assert await _get(bound, "/sub/page") == (200, "page of Pages")


async def test_a_router_alone_becomes_an_application() -> None:
    router = APIRouter()

    @ingress(router)
    class Api:
        @router.get("/here")
        def here(self) -> str:
            return "here"

    assert await _get(_application(Api()), "/here") == (200, '"here"')


async def test_a_class_may_build_its_application_itself() -> None:
    @ingress()
    class Api:
        def __serve_build_asgi_app__(self) -> Starlette:
            return Starlette(routes=[Route("/", lambda request: PlainTextResponse("built"))])

    assert await _get(_application(Api()), "/") == (200, "built")


def test_what_is_built_must_be_an_application() -> None:
    def build() -> int:
        return 3

    decorated = ingress(build)()
    with pytest.raises(TypeError, match=r"build\(\) must return an ASGI application, got int"):
        _application(decorated())


class _Callable:
    def __call__(self) -> None: ...


class _Plain: ...


@pytest.mark.parametrize(
    ("app", "target", "message"),
    [
        (importable, lambda: None, "must be used with a class"),
        (importable, _Callable, "may not have __call__ method"),
        (None, _Plain, "without an application needs _Plain.__serve_build_asgi_app__"),
    ],
    ids=["function", "callable class", "nothing to build"],
)
def test_what_cannot_be_decorated_is_refused(app: Any, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ingress(app)(target)


async def _raw(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None: ...


@pytest.mark.parametrize("app", [importable, _raw], ids=["application", "callable"])
def test_an_application_with_an_import_path_is_pickled_by_it(app: Any) -> None:
    remembered = ingress_of(ingress(app)())
    assert pickle.loads(pickle.dumps(remembered)).app is app


def test_an_application_without_one_is_not_pickled() -> None:
    remembered = ingress_of(ingress(FastAPI())())
    with pytest.raises(NotPicklable, match="FastAPI application has no import path"):
        pickle.dumps(remembered)
