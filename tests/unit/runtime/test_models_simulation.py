"""Requests that ask, leave and fail as hypothesis likes: each model is loaded once at a time and unloaded once."""

import asyncio
import gc
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from salver.handle.request_context import RequestContext, enter_request
from salver.runtime.context import ReplicaContext, set_replica_context
from salver.runtime.models import Models, models_here, unload_models
from salver.schema.ids import DeploymentID, ReplicaID


class Shelf:
    """What a user's loader makes, counted.

    Attributes:
        there: How many models are loaded or being loaded.
        ended: How often each one was unloaded.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.there = 0
        self.loading = 0
        self.made = 0
        self.ended: Counter[int] = Counter()

    async def load(self, model_id: str) -> "Thing":
        self.there += 1
        self.loading += 1
        assert self.loading == 1, "two loads at once"
        assert self.there <= self.capacity, "a model is loaded before another has left"
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if model_id.isupper():
                raise ValueError(model_id)
        except BaseException:
            self.there -= 1
            raise
        finally:
            self.loading -= 1
        self.made += 1
        return Thing(self, model_id, self.made)


class Thing:
    """A model."""

    def __init__(self, shelf: Shelf, model_id: str, number: int) -> None:
        self.shelf, self.model_id, self.number = shelf, model_id, number

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        self.shelf.ended[self.number] += 1
        self.shelf.there -= 1


async def ask(models: "Models[Thing]", model_id: str, steps: int) -> str:
    """Be a request: get a model, and work with it for some steps."""
    request = RequestContext(request_id="a request")
    enter_request(request)
    try:
        model = await models.get(model_id)
        for _ in range(steps):
            await asyncio.sleep(0)
        return model.model_id
    finally:
        request.is_over = True


async def play(capacity: int, moves: list[tuple[str, int]]) -> None:
    set_replica_context(ReplicaContext(ReplicaID("r1", DeploymentID("Model", "shop")), None, "v1"))
    shelf = Shelf(capacity)
    models = models_here().of("loader", shelf.load, capacity)
    asked: list[tuple[str, asyncio.Task[str]]] = []
    for what, number in moves:
        if what == "cancel":
            if asked:
                asked[number % len(asked)][1].cancel()
        elif what == "step":
            for _ in range(number):
                await asyncio.sleep(0)
        else:
            asked.append((what, asyncio.create_task(ask(models, what, number))))
    for model_id, task in asked:
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, str):
            assert outcome == model_id
        else:
            assert isinstance(outcome, asyncio.CancelledError) or (model_id.isupper() and str(outcome) == model_id)
    await unload_models()
    set_replica_context(None)
    gc.collect(0)
    assert shelf.ended == dict.fromkeys(range(1, shelf.made + 1), 1)
    assert shelf.there == 0


moves = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "BROKEN", "cancel", "step"]), st.integers(0, 9)))


@settings(max_examples=200, deadline=None)
@given(capacity=st.integers(1, 3), moves=moves)
def test_models_are_loaded_one_at_a_time_within_the_limit_and_unloaded_once(
    capacity: int, moves: list[tuple[str, int]]
) -> None:
    asyncio.run(asyncio.wait_for(play(capacity, moves), 10))
