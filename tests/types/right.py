"""Lines that every type checker must accept, with the types it must see."""

from collections.abc import Callable
from typing import Any, assert_type

import salver as serve
from tests.types.classes import Batching, Counter, Ingress, Talker, Translator, count, shout

Translators = serve.DeploymentHandle[Translator]
Counters = serve.DeploymentHandle[Counter]


async def calls_are_typed(translator: Translators, counter: Counters) -> None:
    assert_type(translator.remote("a"), serve.DeploymentResponse[list[str]])
    assert_type(await translator.remote("a", limit=3), list[str])
    assert_type(translator.remote(text="a", share=0.5).result(timeout_s=1), list[str])
    assert_type(counter.remote(1).result(), str)


async def methods_are_named_by_the_class(translator: Translators, counter: Counters) -> None:
    assert_type(await translator[Translator.score].remote("a"), float)
    assert_type(await translator[Translator.languages].remote(short=True), dict[str, int])
    assert_type(await translator[Translator.__call__].remote("a"), list[str])
    assert_type(await counter[Counter.__call__].remote(1), str)


async def any_name_is_taken_untyped(translator: Translators) -> None:
    assert_type(await translator.score.remote(1, of=2), Any)
    assert_type(await translator.whatever.remote(), Any)
    assert_type(await translator.options(method_name="score").remote(1), Any)


async def options_keep_the_type(translator: Translators) -> None:
    assert_type(translator.options(session_id="a"), Translators)
    assert_type(await translator.options(multiplexed_model_id="a").remote("a"), list[str])
    assert_type(await translator[Translator.score].options(session_id="a").remote("a"), float)


async def an_untyped_handle_takes_everything(bare: serve.DeploymentHandle, other: serve.DeploymentHandle[Any]) -> None:
    assert_type(await bare.remote(1, x=2), Any)
    assert_type(await other.remote(1, x=2), Any)
    assert_type(await other.score.remote(), Any)


async def responses_of_other_calls_are_arguments(translator: Translators, counter: Counters, numbers: Any) -> None:
    text = counter.remote(1)
    number = serve.get_deployment_handle("numbers").remote()
    assert_type(await translator.remote(text), list[str])
    assert_type(await translator.remote(text, limit=1), list[str])
    assert_type(await translator.remote("a", number), list[str])
    assert_type(await translator.remote(text, number, translator[Translator.score].remote("a")), list[str])
    assert_type(await translator.remote(text, 1, translator[Translator.score].remote("a")), list[str])
    assert_type(await counter.remote(number), str)


async def generators_are_typed(
    talker: serve.DeploymentHandle[Talker], counter: Counters, bare: serve.DeploymentHandle, flag: bool
) -> None:
    stream = talker.options(stream=True)
    assert_type(stream.remote("a", size=3), serve.DeploymentResponseGenerator[str])
    async for text in stream.remote("a"):
        assert_type(text, str)
    for number in stream[Talker.numbers].remote(3):
        assert_type(number, int)
    for number in talker[Talker.numbers].options(stream=True, session_id="a").remote(3):
        assert_type(number, int)
    assert_type(stream.remote(counter.remote(1)), serve.DeploymentResponseGenerator[str])
    assert_type(stream.options(session_id="a").remote("a"), serve.DeploymentResponseGenerator[str])
    async for item in talker.options(method_name="numbers", stream=True).remote(1, 2, 3):
        assert_type(item, Any)
    async for item in bare.options(stream=True).remote(1, x=2):
        assert_type(item, Any)
    async for item in bare.numbers.options(stream=True).remote(1, x=2):
        assert_type(item, Any)
    assert_type(talker.options(stream=flag).remote(), Any)


async def batched_methods_are_called_with_one_item(handle: serve.DeploymentHandle[Batching]) -> None:
    assert_type(await handle[Batching.half].remote(1), float)
    assert_type(await handle.remote(1), str)


async def functions_are_typed(function: serve.DeploymentHandle[Callable[[int], str]]) -> None:
    assert_type(await function.remote(1), str)
    assert_type(await serve.run(serve.deployment(shout).bind()).remote("a", times=2), str)
    assert_type(await serve.run(serve.deployment(count, num_replicas=2).bind()).remote(), int)


async def run_returns_the_handle_of_the_class() -> None:
    deployment = serve.deployment(Translator, num_replicas=2)
    app = deployment.bind("fr", beams=2)
    assert_type(app, serve.Application[Translator])
    assert_type(serve.run(app), Translators)
    assert_type(serve.run(serve.deployment(name="named")(Translator).bind("fr")), Translators)
    assert_type(serve.run(deployment.options(num_replicas=3).bind("fr")), Translators)
    assert_type(serve.run(deployment.options(Counter).bind()), Counters)


def a_bound_deployment_is_bound_where_a_handle_is_expected() -> serve.Application:
    translator = serve.deployment(Translator).bind("fr")
    return serve.deployment(Ingress).bind(translator, {"a": serve.deployment(Counter).bind()})


def the_class_of_a_deployment_is_known(translator: Translators) -> None:
    deployment = serve.deployment(Translator)
    assert_type(deployment.func_or_class("fr").score("a"), float)
    assert_type(translator[deployment.func_or_class.score].remote("a").result(), float)


@serve.deployment
def bare(number: int) -> str:
    return str(number)


@serve.deployment(max_ongoing_requests=3)
async def configured(number: int) -> str:
    return str(number)


async def decorated_functions_are_typed() -> None:
    assert_type(await serve.run(bare.bind()).remote(1), str)
    assert_type(await serve.run(configured.bind()).remote(1), str)
