"""What an HTTP client sees of a real run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.serving import Run, get, new_place

APP = """
    import asyncio, os
    import salver as serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse, StreamingResponse

    @serve.deployment(max_ongoing_requests=20)
    class Echo:
        async def __call__(self, request: Request):
            path = request.scope["path"].removeprefix(request.scope["root_path"])
            match path:
                case "/text": return "text"
                case "/bytes": return b"\\x00bytes"
                case "/none": return None
                case "/json": return {"a": [1, 2.5, None], "b": {1, }, "nan": float("nan")}
                case "/response": return JSONResponse({"teapot": True}, status_code=418, headers={"x-mine": "1"})
                case "/raise": raise ValueError("boom in user code")
                case "/unencodable": return object()
                case "/exit": os._exit(3)
                case "/stream":
                    async def chunks():
                        for number in range(3):
                            yield f"chunk {number}\\n"
                    return StreamingResponse(chunks(), media_type="text/plain")
            return {
                "method": request.method, "path": request.scope["path"], "root": request.scope["root_path"],
                "query": dict(request.query_params), "body": (await request.body()).decode(),
                "header": request.headers.get("x-test"),
            }

    @serve.deployment
    def zero():
        return "no parameter"

    app = Echo.bind()
    zero_app = zero.bind()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for all tests of this module; none of them may disturb it."""
    path: Path = tmp_path_factory.mktemp("http")
    with new_place(path) as place:
        place.write("echo.py", APP)
        with place.run("echo:app", "--route-prefix", "/e") as each:
            each.url()
            yield each


@pytest.fixture(scope="module")
def url(run: Run) -> str:
    return run.url()


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/text", "text/plain; charset=utf-8", b"text"),
        ("/bytes", "text/plain", b"\x00bytes"),
        ("/none", "text/plain", b""),
        ("/json", "application/json", b'{"a":[1,2.5,null],"b":[1],"nan":NaN}'),
    ],
)
def test_results_are_encoded_by_their_type(url: str, path: str, content_type: str, body: bytes) -> None:
    response = get(url + path)
    assert (response.status_code, response.headers["content-type"], response.content) == (200, content_type, body)


def test_a_starlette_response_is_sent_as_it_is(url: str) -> None:
    response = get(url + "/response")
    assert (response.status_code, response.json(), response.headers["x-mine"]) == (418, {"teapot": True}, "1")


def test_a_streaming_response_arrives_whole(url: str) -> None:
    assert get(url + "/stream").text == "chunk 0\nchunk 1\nchunk 2\n"


def test_the_handler_gets_the_whole_request(url: str) -> None:
    response = httpx.put(url + "/some/where?q=1&r=ü", content="päyload", headers={"x-test": "yes"})
    assert response.json() == {
        "method": "PUT",
        "path": "/e/some/where",
        "root": "/e",
        "query": {"q": "1", "r": "ü"},
        "body": "päyload",
        "header": "yes",
    }


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_bodies_of_any_size_arrive(url: str, size: int) -> None:
    assert len(httpx.post(url, content=b"x" * size, timeout=30).json()["body"]) == size


def test_a_chunked_request_body_arrives(url: str) -> None:
    assert httpx.post(url, content=iter([b"one ", b"two"])).json()["body"] == "one two"


def test_an_exception_is_a_500_whose_id_finds_the_traceback(run: Run, url: str) -> None:
    response = get(url + "/raise", headers={"x-request-id": "find-me-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "find-me-1")
    assert "ValueError: boom in user code" in response.text  # a run on loopback shows tracebacks
    assert "salver/" not in response.text
    run.wait_for("request find-me-1 failed with 500")


def test_a_result_that_cannot_be_encoded_is_a_500(url: str) -> None:
    response = get(url + "/unencodable")
    assert response.status_code == 500
    assert "cannot be turned into JSON" in response.text


def test_a_request_id_is_made_where_the_client_gives_none(url: str) -> None:
    first, second = (get(url + "/text").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{24}", first)


def test_an_unknown_path_is_a_404_that_says_where_to_look(url: str) -> None:
    root = url.removesuffix("/e")
    response = get(root + "/elsewhere")
    assert response.status_code == 404
    assert response.text == "Path '/elsewhere' not found. Ping http://.../-/routes for available routes."
    assert "x-request-id" in response.headers


def test_a_prefix_matches_whole_segments_only(url: str) -> None:
    assert get(url + "x").status_code == 404
    assert get(url).json()["path"] == "/e"


def test_the_proxy_answers_for_itself(url: str) -> None:
    root = url.removesuffix("/e")
    assert get(root + "/-/routes").json() == {"/e": "default"}
    healthy = get(root + "/-/healthz")
    assert (healthy.status_code, healthy.text) == (200, "success")


def test_head_has_the_headers_and_no_body(url: str) -> None:
    response = httpx.head(url + "/text")
    assert (response.status_code, response.headers["content-length"], response.content) == (200, "4", b"")


def test_one_connection_serves_many_requests(url: str) -> None:
    with httpx.Client() as client:
        ports = {client.get(url + "/text").extensions["network_stream"].get_extra_info("client_addr") for _ in range(5)}
    assert len(ports) == 1


def test_a_replica_that_dies_gives_a_502_with_the_reason(run: Run, url: str) -> None:
    response = httpx.post(url + "/exit", headers={"x-request-id": "fatal"})
    assert response.status_code == 502
    assert "died while it was working on request fatal" in response.text
    assert get(url + "/text").text == "text"  # its successor


def test_a_function_without_parameters_gets_none(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write("echo.py", APP)
        with place.run("echo.py:zero_app") as run:
            assert get(run.url()).text == "no parameter"


def test_routes_are_json(url: str) -> None:
    response = get(url.removesuffix("/e") + "/-/routes")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.content)
