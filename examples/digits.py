"""Recognise handwritten digits: two real models behind one HTTP endpoint.

`DigitsIngress` speaks HTTP. It hands what a client posts to `Preprocessor`, which checks and scales the
images, and these to the classifier that the client chose: a scikit-learn support vector machine or a PyTorch
network. Both train on the first start, within seconds, and stay in ~/.cache/salver-examples.

    pip install scikit-learn
    pip install torch       # optional: without it there is no ?model=cnn
    salver run examples.digits:app

The models and how accurate they are; a digit that none has seen; the same digit recognised, by either model:

    curl http://127.0.0.1:8000/
    curl 'http://127.0.0.1:8000/sample?index=3'
    curl -s 'http://127.0.0.1:8000/sample?index=3' | curl -sd @- http://127.0.0.1:8000/
    curl -s 'http://127.0.0.1:8000/sample?index=3' | curl -sd @- 'http://127.0.0.1:8000/?model=cnn'
"""

import json
import logging
from importlib.util import find_spec
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import salver as serve
from examples.digits_images import Array, bundled_digits, posted_images
from examples.digits_models import Model, cnn_model, sklearn_model
from salver.handle import DeploymentHandle

NEEDS_TORCH = "The model 'cnn' needs PyTorch. Run: pip install torch, then start the application again."
SMALL = {"num_cpus": 0.25}  # so that all of it fits a laptop with two cores


@serve.deployment(ray_actor_options=SMALL)
class Preprocessor:
    def __call__(self, payload: Any) -> Array:
        return posted_images(payload)


class Classifier:
    """What both classifiers do, whatever computes the probabilities."""

    def __init__(self, model: Model) -> None:
        _, self.held_out = bundled_digits()
        self.model = model
        self.accuracy = model.accuracy(self.held_out)

    def predict(self, images: Array) -> list[dict[str, Any]]:
        rows = self.model.probabilities(images)
        return [{"digit": int(row.argmax()), "confidence": round(float(row.max()), 4)} for row in rows]

    def describe(self) -> dict[str, Any]:
        return {"library": self.model.library, "held_out_accuracy": round(self.accuracy, 4)}

    def sample(self, index: int) -> dict[str, Any]:
        return self.held_out.sample(index)


@serve.deployment(num_replicas=2, ray_actor_options=SMALL)
class SklearnClassifier(Classifier):
    def __init__(self) -> None:
        super().__init__(sklearn_model())


@serve.deployment(ray_actor_options=SMALL)
class CnnClassifier(Classifier):
    def __init__(self) -> None:
        super().__init__(cnn_model())


@serve.deployment(max_ongoing_requests=100, ray_actor_options=SMALL)
class DigitsIngress:
    def __init__(self, preprocessor: DeploymentHandle, classifiers: dict[str, DeploymentHandle]) -> None:
        self.preprocessor = preprocessor
        self.classifiers = classifiers
        if "cnn" not in classifiers:
            logging.getLogger("salver").warning(NEEDS_TORCH)

    async def __call__(self, request: Request) -> Response:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
        match request.method, path:
            case "GET", "/":
                return await self.describe(str(request.base_url))
            case "GET", "/sample":
                return await self.sample(request.query_params.get("index", "0"))
            case "POST", "/":
                return await self.predict(await request.body(), request.query_params.get("model", "sklearn"))
        return refusal(404, f"Nothing answers {request.method} {path}; GET / says what there is.")

    async def describe(self, url: str) -> Response:
        models: dict[str, Any] = {"cnn": {"missing": NEEDS_TORCH}}
        for name, classifier in self.classifiers.items():
            models[name] = await classifier.describe.remote()
        sample = await self.classifiers["sklearn"].sample.remote(0)
        get = f"'{url}sample?index=0'"
        post = [f"curl -s {get} | curl -sd @- '{url}?model={name}'" for name in self.classifiers]
        return JSONResponse({"usage": [f"curl {get}", *post], "models": models, "sample": sample})

    async def sample(self, index: str) -> Response:
        try:
            return JSONResponse(await self.classifiers["sklearn"].sample.remote(int(index)))
        except ValueError as error:
            return refusal(400, error)

    async def predict(self, body: bytes, model: str) -> Response:
        if model not in self.classifiers:
            unknown = f"There is no model {model!r}; GET / lists the models."
            return refusal(501, NEEDS_TORCH) if model == "cnn" else refusal(404, unknown)
        try:
            payload = json.loads(body)
            images = await self.preprocessor.remote(payload)
        except (ValueError, RecursionError) as error:
            return refusal(400, error)
        predictions = await self.classifiers[model].predict.remote(images)
        if "images" in payload:
            return JSONResponse({"model": model, "predictions": predictions})
        return JSONResponse({"model": model, **predictions[0]})


def refusal(status: int, why: str | Exception) -> Response:
    # The text of another replica's error holds a traceback; its cause is the error as it was raised there.
    return JSONResponse({"error": str(getattr(why, "cause", why))}, status_code=status)


if not find_spec("sklearn"):
    raise ModuleNotFoundError("This example needs scikit-learn. Run: pip install scikit-learn")
classifiers = {"sklearn": SklearnClassifier.bind()}
if find_spec("torch"):
    classifiers["cnn"] = CnnClassifier.bind()
app = DigitsIngress.bind(Preprocessor.bind(), classifiers)

if __name__ == "__main__":
    serve.run(app, blocking=True)
