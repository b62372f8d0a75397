"""A replica's models: loaded one at a time for each loader, shared by all who wait, unloaded once."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from salver.handle.request_context import RequestContext, current_request, enter_request
from salver.lib.finalizers import claim_finalizer
from salver.lib.tasks import Tasks
from salver.lib.tracebacks import user_traceback
from salver.runtime.context import find_replica_context
from salver.runtime.model_cache import ModelCache
from salver.schema.ids import ReplicaID
from salver.telemetry.logs import LOGGER_NAME

M = TypeVar("M")

Loader = Callable[[str], Awaitable[M]]

logger = logging.getLogger(LOGGER_NAME)


class _Loading(Generic[M]):
    """A load that is under way, or that waits for another one.

    Attributes:
        waiters: Who gets the model, and the request that each works on.
        begun: The user's loader was called: it goes on even if nobody waits any more, for whoever comes next.
    """

    def __init__(self) -> None:
        self.waiters: dict[asyncio.Future[M], RequestContext] = {}
        self.begun = False
        self.task: asyncio.Task[None]


class Models(Generic[M]):
    """The models of one loader in one replica.

    Args:
        load: Makes a model from its id.
        capacity: How many there may be; -1 for any number.
        on_change: Called when another model is loaded, being loaded or gone.
        tasks: Owns the loads.
    """

    def __init__(self, load: Loader[M], capacity: int, on_change: Callable[[], None], tasks: Tasks) -> None:
        self._load = load
        self._cache: ModelCache[M] = ModelCache(capacity)
        self._loading: dict[str, _Loading[M]] = {}
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._tasks = tasks

    @property
    def ids(self) -> set[str]:
        """Return the ids of the models that are loaded or will be."""
        return {*self._cache, *self._loading}

    async def get(self, model_id: str) -> M:
        """Return a model, loaded if it was not there; it is the one used last from now on.

        Raises:
            RuntimeError: Another event loop than the replica's asks.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "A multiplexed function was awaited in another event loop than the replica's. "
                "Await it in an `async def` method, without `asyncio.run` or a thread of your own."
            )
        request = current_request()
        if model_id in self._cache:
            return self._cache.use(model_id, request)
        loading = self._loading.get(model_id) or self._start(model_id)
        waiter: asyncio.Future[M] = self._loop.create_future()
        loading.waiters[waiter] = request
        try:
            return await waiter
        finally:
            del loading.waiters[waiter]
            if not loading.waiters and not loading.begun:
                self._give_up(model_id, loading)

    async def unload_all(self) -> None:
        """Unload all models; called once nothing loads any more."""
        for model_id in list(self._cache):
            await self._unload(model_id)

    def _start(self, model_id: str) -> _Loading[M]:
        loading = self._loading[model_id] = _Loading()
        loading.task = self._tasks.start(self._work(model_id, loading), name=f"load model {model_id}")
        self._on_change()
        return loading

    def _give_up(self, model_id: str, loading: _Loading[M]) -> None:
        loading.task.cancel()
        if self._loading.get(model_id) is loading:
            del self._loading[model_id]
            self._on_change()

    async def _work(self, model_id: str, loading: _Loading[M]) -> None:
        async with self._turn:
            loading.begun = True
            try:
                while (oldest := self._cache.next_to_go()) is not None:
                    await self._unload(oldest)
                model = await self._call(model_id)
            except BaseException as error:  # noqa: BLE001 - user code may raise anything, and who waits must hear of it
                self._failed(model_id, loading, error)
            else:
                self._loaded(model_id, loading, model)

    async def _call(self, model_id: str) -> M:
        """Call the user's loader for all who wait: what the first one's request has left, and its end, do not count."""
        first = current_request()
        request = RequestContext(
            first.route,
            first.request_id,
            first.app_name,
            multiplexed_model_id=model_id,
            session_id=first.session_id,
            is_http_request=first.is_http_request,
        )
        enter_request(request)
        try:
            return await self._load(model_id)
        finally:
            request.is_over = True

    def _loaded(self, model_id: str, loading: _Loading[M], model: M) -> None:
        del self._loading[model_id]
        self._cache.add(model_id, model)
        for waiter, request in loading.waiters.items():
            if not waiter.done():
                waiter.set_result(self._cache.use(model_id, request))

    def _failed(self, model_id: str, loading: _Loading[M], error: BaseException) -> None:
        del self._loading[model_id]
        self._on_change()
        if not isinstance(error, asyncio.CancelledError):
            logger.warning("model %r could not be loaded\n%s", model_id, user_traceback(error))
        for waiter in loading.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    async def _unload(self, model_id: str) -> None:
        model = self._cache.remove(model_id)
        self._on_change()
        finalizer = claim_finalizer(model)
        if finalizer is None:
            return
        try:
            is_async = inspect.iscoroutinefunction(finalizer)
            done = finalizer(model) if is_async else await asyncio.to_thread(finalizer, model)
            if inspect.isawaitable(done):
                await done
        except Exception as error:  # noqa: BLE001 - user code may raise anything; the model is gone all the same
            logger.warning("model %r: its end raised\n%s", model_id, user_traceback(error))


class ReplicaModels:
    """All models of a replica, whatever loads them.

    Attributes:
        on_change: Called when `ids` may have changed; set by whoever wants to know.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = _nobody
        self._loaders: dict[Hashable, Models[Any]] = {}
        self._tasks = Tasks(on_error=_report)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the models that are loaded or will be, in order."""
        return tuple(sorted(set().union(*(each.ids for each in self._loaders.values()))))

    def of(self, key: Hashable, load: Loader[M], capacity: int) -> Models[M]:
        """Return the models of a loader, made at the first use.

        Args:
            key: The loader's own.
        """
        models = self._loaders.get(key)
        if models is None:
            models = self._loaders[key] = Models(load, capacity, self._changed, self._tasks)
        return models

    async def close(self) -> None:
        """Stop loading and unload all models."""
        await self._tasks.close()
        for each in self._loaders.values():
            await each.unload_all()

    def _changed(self) -> None:
        self.on_change()


_replicas: dict[ReplicaID, ReplicaModels] = {}


def models_here() -> ReplicaModels:
    """Return the models of the replica that the calling code runs in.

    Raises:
        RuntimeError: It runs in none.
    """
    context = find_replica_context()
    if context is None:
        raise RuntimeError("A function decorated with @serve.multiplexed can only be called in a deployment's replica.")
    models = _replicas.get(context.replica_id)
    if models is None:
        models = _replicas[context.replica_id] = ReplicaModels()
    return models


async def unload_models() -> None:
    """Unload all models of the replica that the calling code runs in; called when it ends."""
    context = find_replica_context()
    if context is not None and (models := _replicas.pop(context.replica_id, None)) is not None:
        await models.close()


def _nobody() -> None:
    """Nobody wants to know."""


def _report(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
