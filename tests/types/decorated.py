"""Decorated classes: mypy takes them for the classes that they were, pyright sees deployments."""

import salver as serve


@serve.deployment
class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, number: int) -> str:
        return str(number)


@serve.deployment(num_replicas=2)
class Other:
    def __call__(self, number: int) -> str:
        return str(number)


def refused_by_mypy() -> None:
    serve.run(Model.bind(1)).remote(2)  # E: mypy
    serve.run(Other.bind()).remote(2)  # E: mypy
    serve.run(Other.options(num_replicas=3).bind()).remote(2)  # E: mypy


def refused_by_both() -> None:
    Model.bind("a")  # E
    serve.run(Model.bind(1)).remote("a")  # E
