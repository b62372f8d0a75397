"""The digits example without a server: what it takes and answers, and how good its models are."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from starlette.requests import Request

numpy = pytest.importorskip("numpy")
pytest.importorskip("sklearn")

from examples import digits, digits_models  # noqa: E402
from examples.digits_images import MAX_IMAGES, bundled_digits, posted_images  # noqa: E402

BLANK = [0] * 64


class Called:
    """Stands in for a handle: calls the object at once."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, method: str) -> "Called":
        return Called(getattr(self.target, method))

    async def remote(self, *args: Any) -> Any:
        return self.target(*args)


def replica(deployment: Any, *args: Any) -> Any:
    """Construct what a deployment decorates."""
    return deployment.func_or_class(*args)


async def answer(ingress: Any, method: str, url: str, body: bytes = b"", prefix: str = "") -> tuple[int, Any]:
    """Send one request to the ingress; return the status and the JSON."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    path, _, query = url.partition("?")
    target = {"method": method, "path": path, "query_string": query.encode(), "root_path": prefix}
    headers = [(b"host", b"digits.test")]
    response = await ingress(Request({"type": "http", "scheme": "http", "headers": headers, **target}, receive))
    return response.status_code, json.loads(response.body)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is trained here out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def classifier() -> Any:
    return replica(digits.SklearnClassifier)


@pytest.fixture(scope="module")
def ingress(classifier: Any) -> Any:
    """Return the ingress as it is where PyTorch is missing."""
    return replica(digits.DigitsIngress, Called(replica(digits.Preprocessor)), {"sklearn": Called(classifier)})


@pytest.mark.parametrize("image", [BLANK, [[0] * 8] * 8], ids=["flat", "rows"])
def test_an_image_becomes_one_row(image: list[Any]) -> None:
    assert posted_images({"image": image}).shape == (1, 64)


def test_pixels_are_scaled_to_one() -> None:
    rows = posted_images({"images": [[16] * 64, [4] * 64]})
    assert rows.dtype == numpy.float32
    assert rows[:, 0].tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        pytest.param([BLANK], r'post \{"image": ...\}', id="not an object"),
        pytest.param({"picture": BLANK}, r'post \{"image": ...\}', id="another key"),
        pytest.param({"image": BLANK, "images": [BLANK]}, r'post \{"image": ...\}', id="both keys"),
        pytest.param({"images": []}, f"1 to {MAX_IMAGES} of them", id="no images"),
        pytest.param({"images": [BLANK] * (MAX_IMAGES + 1)}, f"1 to {MAX_IMAGES} of them", id="too many"),
        pytest.param({"images": "abc"}, r'post \{"image": ...\}', id="images are a string"),
        pytest.param({"images": [BLANK, [1, 2]]}, r"images\[1\] has shape \[2\]", id="second too small"),
        pytest.param({"image": [[0] * 7] * 8}, r"image has shape \[8, 7\]", id="seven columns"),
        pytest.param({"image": [[0] * 8] * 7 + [[0]]}, "rows of unequal length", id="ragged"),
        pytest.param({"image": None}, r"image has shape \[\]", id="null"),
        pytest.param({"image": {"0": 1}}, r"image has shape \[\]", id="an object"),
        pytest.param({"image": ["1"] * 64}, "other than plain numbers", id="strings"),
        pytest.param({"image": [True] * 64}, "other than plain numbers", id="booleans"),
        pytest.param({"image": [None] * 64}, "other than plain numbers", id="nulls"),
        pytest.param({"image": [10**40] * 64}, "other than plain numbers", id="too big for a number"),
        pytest.param({"image": [17] * 64}, "outside the range", id="too dark"),
        pytest.param({"image": [-0.1] * 64}, "outside the range", id="negative"),
        pytest.param({"image": [math.nan] * 64}, "outside the range", id="not a number"),
        pytest.param({"image": [math.inf] * 64}, "outside the range", id="infinity"),
    ],
)
def test_a_bad_payload_is_refused_with_a_reason(payload: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replica(digits.Preprocessor)(payload)


def test_no_held_out_digit_is_trained_on() -> None:
    seen, held_out = bundled_digits()
    assert len(seen.labels) + len(held_out.labels) == 1797
    assert len(held_out.labels) == 450
    assert bundled_digits()[1] is held_out


def test_the_sklearn_model_recognises_digits(classifier: Any) -> None:
    assert classifier.describe()["held_out_accuracy"] >= 0.95


@pytest.mark.torch
def test_the_network_recognises_digits() -> None:
    pytest.importorskip("torch")
    network = replica(digits.CnnClassifier)
    assert network.describe()["held_out_accuracy"] >= 0.95
    sample = network.sample(0)
    assert network.predict(posted_images(sample))[0]["digit"] == sample["label"]


def test_the_second_start_finds_the_trained_model(classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_models, "_train_sklearn", pytest.fail)
    assert replica(digits.SklearnClassifier).accuracy == classifier.accuracy


def test_replicas_that_start_together_train_once() -> None:
    both = Barrier(2)
    trained = []

    def train(path: Path) -> None:
        trained.append(path)
        path.write_text("model")

    def start() -> str:
        both.wait()
        return digits_models.trained_once("together", train).read_text()

    with ThreadPoolExecutor(2) as replicas:
        starts = [replicas.submit(start) for _ in range(2)]
    assert [started.result() for started in starts] == ["model", "model"]
    assert len(trained) == 1


def test_a_training_that_fails_leaves_no_model_behind() -> None:
    def fail(path: Path) -> None:
        path.write_text("half a model")
        raise MemoryError

    def train(path: Path) -> None:
        path.write_text("model")

    with pytest.raises(MemoryError):
        digits_models.trained_once("failed", fail)
    assert digits_models.trained_once("failed", train).read_text() == "model"


async def test_a_sample_posted_back_is_recognised(ingress: Any) -> None:
    status, sample = await answer(ingress, "GET", "/sample?index=3")
    assert (status, sorted(sample)) == (200, ["image", "label"])
    status, prediction = await answer(ingress, "POST", "/", json.dumps(sample).encode())
    assert (status, prediction["model"], prediction["digit"]) == (200, "sklearn", sample["label"])
    assert 0.5 < prediction["confidence"] <= 1


async def test_many_images_get_one_prediction_each(ingress: Any) -> None:
    _, held_out = bundled_digits()
    samples = [held_out.sample(index) for index in range(5)]
    body = json.dumps({"images": [sample["image"] for sample in samples]}).encode()
    _, answered = await answer(ingress, "POST", "/?model=sklearn", body)
    assert [one["digit"] for one in answered["predictions"]] == [sample["label"] for sample in samples]


async def test_the_front_page_says_how_to_use_it(ingress: Any) -> None:
    status, page = await answer(ingress, "GET", "/digits", prefix="/digits")
    assert status == 200
    assert page["models"]["sklearn"]["held_out_accuracy"] >= 0.95
    assert page["models"]["cnn"] == {"missing": digits.NEEDS_TORCH}
    assert page["usage"] == [
        "curl 'http://digits.test/digits/sample?index=0'",
        "curl -s 'http://digits.test/digits/sample?index=0' | curl -sd @- 'http://digits.test/digits/?model=sklearn'",
    ]
    assert page["sample"] == bundled_digits()[1].sample(0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        pytest.param("POST", "/", b"no json", 400, "Expecting value", id="not JSON"),
        pytest.param("POST", "/", b"\xff\xfe\xfd", 400, "codec can't decode", id="not text"),
        pytest.param("POST", "/", b"[" * 100_000, 400, "while decoding", id="too deep"),
        pytest.param("POST", "/", b'{"image": [1]}', 400, "image has shape [1]", id="bad image"),
        pytest.param("POST", "/?model=cnn", b"{}", 501, "pip install torch", id="PyTorch missing"),
        pytest.param("POST", "/?model=oracle", b"{}", 404, "no model 'oracle'", id="unknown model"),
        pytest.param("GET", "/sample?index=450", b"", 400, "0 to 449", id="no such sample"),
        pytest.param("GET", "/sample?index=x", b"", 400, "invalid literal", id="sample by letter"),
        pytest.param("DELETE", "/", b"", 404, "DELETE /;", id="another method"),
    ],
)
async def test_a_bad_request_is_told_why(
    ingress: Any, method: str, path: str, body: bytes, status: int, error: str
) -> None:
    answered, page = await answer(ingress, method, path, body)
    assert (answered, error in page["error"]) == (status, True), page
