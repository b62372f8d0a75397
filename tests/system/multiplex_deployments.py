"""Deployments with many models, for the tests of multiplexing; in a module of their own: replicas import them."""

import os
from pathlib import Path
from typing import Any

import salver as serve
from salver.handle import DeploymentHandle


class Model:
    """A model that writes down when it is loaded and when it ends."""

    def __init__(self, name: str, journal: str) -> None:
        self.name = name
        self.journal = journal
        note(journal, f"load {name}")

    def __del__(self) -> None:
        note(self.journal, f"end {self.name}")


def note(journal: str, line: str) -> None:
    """Write a line that no other process can write into."""
    with Path(journal).open("a") as file:
        file.write(f"{line}\n")


@serve.deployment
class Zoo:
    """Many models, some of them broken."""

    def __init__(self, journal: str) -> None:
        self.journal = journal
        self.recorded = 0
        self.config: Any = None

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "config": self.config}

    def record_routing_stats(self) -> dict[str, float]:
        return {"pid": os.getpid()}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        raise ValueError("not to be known")

    def reconfigure(self, config: Any) -> None:
        self.config = config

    @serve.multiplexed(max_num_models_per_replica=6)
    async def get_model(self, model_id: str) -> Model:
        if model_id.startswith("broken"):
            note(self.journal, f"fail {model_id}")
            raise FileNotFoundError(f"there is no {model_id}")
        return Model(model_id, self.journal)

    async def __call__(self, request: Any = None) -> dict[str, Any]:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return {"model": model.name, "pid": os.getpid()}


@serve.deployment
class Keeper:
    """Calls a zoo, with and without the model of its own request."""

    def __init__(self, zoo: DeploymentHandle[Any]) -> None:
        self.zoo = zoo

    async def forward(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.zoo.options(multiplexed_model_id=serve.get_multiplexed_model_id()).remote()
        return answer

    async def forget(self) -> str:
        inner: str = await self.zoo.model_id.remote()
        return f"{serve.get_multiplexed_model_id()}>{inner}"


@serve.deployment
class Echo:
    """Says which model a request is for."""

    def model_id(self) -> str:
        return serve.get_multiplexed_model_id()

    async def __call__(self) -> dict[str, Any]:
        return {"model": serve.get_multiplexed_model_id()}


@serve.deployment
class Batches:
    """Works on many items of a model at once."""

    @serve.multiplexed
    async def get_model(self, model_id: str) -> str:
        return model_id.upper()

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def predict(self, items: list[int]) -> list[str]:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return [f"{model}{item}" for item in items]

    async def __call__(self, item: int) -> str:
        return await self.predict(item)
