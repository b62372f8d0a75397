"""The example, over HTTP, as the README says: accuracy on digits that no model has seen."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.serving import Run, new_place

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The example, trained anew."""
    path = tmp_path_factory.mktemp("digits")
    with new_place(ROOT) as place, place.run("examples.digits:app", env={"XDG_CACHE_HOME": str(path)}) as each:
        each.url()
        yield each


def _held_out(client: httpx.Client) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    while (response := client.get("/sample", params={"index": len(samples)})).status_code == 200:
        samples.append(response.json())
    return samples


MODELS = ["sklearn", pytest.param("cnn", marks=pytest.mark.skipif(not find_spec("torch"), reason="needs torch"))]


@pytest.mark.parametrize("model", MODELS)
def test_the_accuracy_over_http_is_at_least_95_percent(run: Run, model: str) -> None:
    with httpx.Client(base_url=run.url(), timeout=60) as client:
        samples = _held_out(client)
        assert len(samples) >= 300
        hits = 0
        for sample in samples:
            answer = client.post("/", params={"model": model}, json=sample)
            hits += answer.json()["digit"] == sample["label"]
    assert hits / len(samples) >= 0.95


def test_the_first_page_tells_how_to_ask(run: Run) -> None:
    page = httpx.get(run.url(), timeout=60).json()
    assert page["models"]["sklearn"]["held_out_accuracy"] >= 0.95
    assert page["usage"][0].startswith("curl ")


@pytest.mark.parametrize("payload", [{}, {"image": [1, 2]}, {"image": "x"}, [], {"image": [[17] * 8] * 8}], ids=repr)
def test_a_bad_image_is_a_400_that_says_why(run: Run, payload: Any) -> None:
    response = httpx.post(run.url(), json=payload, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]
    assert "Traceback" not in response.text
