"""`@serve.ingress`: FastAPI and other ASGI applications, over HTTP, through real processes."""

import textwrap
from collections.abc import Iterator

import httpx
import pytest

from tests.system.serving import Place, get, new_place

APP = """
    import asyncio
    from contextlib import asynccontextmanager

    import salver as serve
    from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel
    from salver.exceptions import BackPressureError

    @asynccontextmanager
    async def lifespan(app):
        yield {"greeting": "hello"}
        open("ended", "w").close()

    api = FastAPI(lifespan=lifespan)
    router = APIRouter(prefix="/router")

    class Item(BaseModel):
        x: float

    def doubled(q: int = 1):
        return 2 * q

    @api.middleware("http")
    async def mark(request, call_next):
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response

    @api.get("/module")
    def module_level():
        return "module"

    class Base:
        @api.get("/inherited")
        async def inherited(self):
            return type(self).__name__

    @serve.deployment(max_ongoing_requests=20)
    @serve.ingress(api)
    class Api(Base):
        def __init__(self, helper):
            self.helper, self.count, self.after = helper, 0, []

        @api.get("/")
        async def root(self):
            return "root"

        @api.post("/predict", status_code=201)
        async def predict(self, item: Item):
            self.count += 1
            return {"y": await self.helper.remote(item.x), "count": self.count}

        @api.get("/depends")
        def depends(self, value: int = Depends(doubled)):
            return value

        @api.get("/state")
        def state(self, request: Request):
            return request.state.greeting

        @api.get("/raise")
        def fail(self):
            raise ValueError("in the endpoint")

        @api.get("/teapot")
        def teapot(self):
            raise HTTPException(418, "short and stout")

        @api.get("/full")
        def full(self):
            raise BackPressureError(1, 1, 429, 1.5)

        @api.get("/stream")
        def stream(self):
            async def chunks():
                for number in range(3):
                    yield f"{number};"
                    await asyncio.sleep(0)
            return StreamingResponse(chunks(), media_type="text/event-stream")

        @api.get("/background")
        def background(self, tasks: BackgroundTasks):
            tasks.add_task(self.after.append, 1)
            return len(self.after)

        @router.get("/method")
        def method(self):
            return self.count

        api.include_router(router)

    @api.get("/late")
    def late():
        return "added after the class was decorated"

    @serve.deployment
    async def half(x):
        return x / 2

    app = Api.bind(half.bind())

    async def raw(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["path"].encode())]})
        await send({"type": "http.response.body", "body": b"raw"})

    def factory():
        built = FastAPI()
        @built.get("/")
        def root():
            return serve.get_replica_context().deployment
        return built

    raw_app = serve.deployment(serve.ingress(raw)()).bind()
    factory_app = serve.deployment(name="Built")(serve.ingress(factory)()).bind()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One run for the tests that only ask."""
    path = tmp_path_factory.mktemp("ingress")
    with new_place(path) as place:
        place.write("service.py", APP)
        with place.run("service:app", "--route-prefix", "/api") as run:
            yield run.url()


def test_methods_share_the_instance_and_call_other_deployments(url: str) -> None:
    first, second = (httpx.post(url + "/predict", json={"x": 5}) for _ in range(2))
    assert (first.status_code, first.json()["y"]) == (201, 2.5)
    assert second.json()["count"] == first.json()["count"] + 1
    assert get(url + "/router/method").json() == second.json()["count"]


def test_input_is_validated(url: str) -> None:
    response = httpx.post(url + "/predict", json={"x": "many"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "x"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/module", 200, '"module"'),
        ("/inherited", 200, '"Api"'),
        ("/depends?q=21", 200, "42"),
        ("/state", 200, '"hello"'),
        ("/raise", 500, "Internal Server Error"),
        ("/teapot", 418, '{"detail":"short and stout"}'),
        ("/stream", 200, "0;1;2;"),
        ("/nowhere", 404, '{"detail":"Not Found"}'),
        ("/late", 404, '{"detail":"Not Found"}'),
    ],
)
def test_endpoints_answer(url: str, path: str, status: int, body: str) -> None:
    response = get(url + path)
    assert (response.status_code, response.text) == (status, body)
    assert response.headers["x-request-id"]


def test_middlewares_run(url: str) -> None:
    assert get(url + "/module").headers["x-marked"] == "yes"


def test_backpressure_of_a_deployment_below_keeps_its_status(url: str) -> None:
    response = get(url + "/full")
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")


def test_background_tasks_run_after_the_answer(url: str) -> None:
    assert get(url + "/background").json() == 0
    assert get(url + "/background").json() == 1


def test_the_documentation_knows_the_prefix(url: str) -> None:
    assert get(url + "/docs").status_code == 200
    schema = get(url + "/openapi.json").json()
    assert schema["servers"] == [{"url": "/api"}]
    assert "self" not in str(schema["paths"])


def test_the_prefix_without_its_slash_is_redirected(url: str) -> None:
    response = get(url)
    assert (response.status_code, response.headers["location"]) == (307, f"{url}/")
    assert get(f"{url}/").json() == "root"


def test_the_shutdown_of_the_lifespan_runs(place: Place) -> None:
    place.write("service.py", APP)
    with place.run("service:app") as run:
        run.url()
        run.signal(2)
        assert run.exit_code() == 0
    assert (place.path / "ended").exists()


def test_any_asgi_callable_and_a_builder_work_without_a_class(place: Place) -> None:
    place.write("service.py", APP)
    with place.run("service:raw_app") as run:
        response = get(run.url() + "/some/path")
        assert (response.text, response.headers["x-path"]) == ("raw", "/some/path")
    with place.run("service:factory_app") as run:
        assert get(run.url()).json() == "Built"


def test_a_startup_that_fails_fails_the_deployment(place: Place) -> None:
    place.write(
        "failing.py",
        """
        from contextlib import asynccontextmanager
        import salver as serve
        from fastapi import FastAPI

        @asynccontextmanager
        async def lifespan(app):
            raise RuntimeError("no database")
            yield

        @serve.deployment
        @serve.ingress(FastAPI(lifespan=lifespan))
        class Api: ...

        app = Api.bind()
        """,
    )
    with place.run("failing:app") as run:
        assert run.exit_code() == 1
        assert "ASGI lifespan startup failed" in run.output
        assert "no database" in run.output


def test_two_ingresses_in_one_application_are_refused(place: Place) -> None:
    place.write("service.py", APP)
    place.write("two.py", "from service import Api\napp = Api.bind(Api.options(name='Other').bind(None))\n")
    with place.run("two:app") as run:
        assert run.exit_code() == 1
        assert "both have @serve.ingress" in run.output


def test_an_application_that_only_a_script_holds_is_refused_with_the_way_out(place: Place) -> None:
    (place.path / "script.py").write_text(f"{textwrap.dedent(APP)}\nserve.run(app)\n")
    with place.start("script.py") as run:
        assert run.exit_code() == 1
        assert "Deployment 'Api': its FastAPI application has no import path" in run.output
        assert "Move it to a module of its own" in run.output
