"""Lines that type checkers must refuse: all those marked so, and no others."""

from collections.abc import Callable

import salver as serve
from tests.types.classes import Batching, Counter, Ingress, Nothing, Talker, Translator, shout

Translators = serve.DeploymentHandle[Translator]
Counters = serve.DeploymentHandle[Counter]


def wrong_arguments_of_calls(translator: Translators, counter: Counters) -> None:
    translator.remote(1)  # E
    translator.remote()  # E
    translator.remote("a", "b")  # E
    translator.remote("a", size=3)  # E
    counter.remote("a")  # E
    counter.remote(1, 2)  # E


def wrong_arguments_of_methods(translator: Translators) -> None:
    translator[Translator.score].remote(1)  # E
    translator[Translator.score].remote()  # E
    translator[Translator.languages].remote(True)  # E
    translator[Translator.languages].options(session_id="a").remote(short="a")  # E


def wrong_results(translator: Translators, counter: Counters) -> None:
    number: int = counter.remote(1).result()  # E
    text: str = translator[Translator.score].remote("a").result()  # E
    print(number, text)


def methods_of_others(translator: Translators) -> None:
    translator[Counter.later].remote(1)  # E
    translator[Translator.nope].remote(1)  # E
    translator["score"].remote("a")  # E


def unknown_options(translator: Translators) -> None:
    translator.options(sesion_id="a")  # E
    translator.options(session_id=1)  # E


def responses_of_the_wrong_type(translator: Translators, counter: Counters) -> None:
    translator.remote(translator.remote("a"))  # E
    translator.remote("a", counter.remote(1))  # E
    counter.remote(counter.remote(1))  # E


def generators(talker: serve.DeploymentHandle[Talker], translator: Translators) -> None:
    stream = talker.options(stream=True)
    stream.remote(1)  # E
    stream[Talker.numbers].remote("a")  # E
    stream[Translator.score].remote("a")  # E
    stream.options(sesion_id="a")  # E
    translator.options(stream=True).remote("a")  # E
    for number in stream[Talker.numbers].remote(3):
        shout(number)  # E


def batches(handle: serve.DeploymentHandle[Batching], translator: Translators) -> None:
    handle[Batching.half].remote("a")  # E
    handle[Batching.half].remote([1])  # E
    handle.remote("a")  # E


def functions(function: serve.DeploymentHandle[Callable[[int], str]]) -> None:
    function.remote("a")  # E
    serve.run(serve.deployment(shout).bind()).remote(1)  # E
    serve.deployment(shout).bind("a")  # E


def a_class_that_cannot_be_called(nothing: serve.DeploymentHandle[Nothing]) -> None:
    nothing.remote()  # E


def constructors() -> None:
    serve.deployment(Translator).bind()  # E
    serve.deployment(Translator).bind(1)  # E
    serve.deployment(Translator, num_replicas=2).bind("fr", beam=1)  # E
    serve.deployment(Translator).options(num_replicas=2).bind(1)  # E
    serve.deployment(Ingress).bind(serve.deployment(Counter).bind(), {})  # E
    serve.deployment(Translator, num_replica=2)  # E
    serve.run(serve.deployment(Translator))  # E


def handles_of_others(counter: Counters) -> Translators:
    return counter  # E
