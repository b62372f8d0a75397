"""Streams between real processes: whole, paced by their readers, and ended with whoever dies or leaves."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import salver as serve
from salver.exceptions import ReplicaDiedError, RequestCancelledError
from tests.soak.cancels import serve_url
from tests.system import stream_deployments as deployments
from tests.system.serving import new_place
from tests.waiting import wait_until_sync

MB = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One instance of this test process, for all tests of the module."""
    path: Path = tmp_path_factory.mktemp("streams")
    with new_place(path) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_RUNTIME_DIR", str(place.runtime_dir))
        serve.start(http_options={"port": 0})
        yield
        serve.shutdown()
        assert place.leftovers() == []


@pytest.fixture
def source() -> Iterator[Any]:
    """A handle to a source that nobody else uses."""
    yield serve.run(deployments.Source.bind(), name="source", route_prefix=None)
    serve.delete("source")


@pytest.fixture
def relay() -> Iterator[Any]:
    """A handle to a relay in front of a source."""
    application = deployments.Relay.bind(deployments.Source.bind())
    yield serve.run(application, name="relay", route_prefix="/relay")
    serve.delete("relay")


def streaming(handle: Any) -> Any:
    return handle.options(stream=True)


def source_of_relay() -> Any:
    return serve.get_deployment_handle("Source", "relay")


def wait_for_end(source: Any, *ends: str) -> None:
    wait_until_sync(lambda: source.seen.remote().result()[1] == list(ends), within_s=10, what="the generator's end")


def stands_still(source: Any) -> int:
    """Return how much was yielded, once nothing more is."""
    last: list[int] = []

    def same() -> bool:
        last.append(source.seen.remote().result()[0])
        return len(last) > 10 and len(set(last[-10:])) == 1

    wait_until_sync(same, within_s=20, what="a producer that stands still")
    return last[-1]


@pytest.mark.parametrize("method", ["count", "count_later"])
def test_ten_thousand_small_items_arrive_in_order(source: Any, method: str) -> None:
    assert list(getattr(streaming(source), method).remote(10_000)) == list(range(10_000))


def test_fifty_arrays_of_a_megabyte_arrive_in_order(source: Any) -> None:
    for number, array in enumerate(streaming(source).arrays.remote(50)):
        assert array.nbytes == MB
        assert (array == number).all()
    assert number == 49


def test_a_driver_reads_with_async_for(source: Any) -> None:
    async def main() -> Any:
        async def read(number: int) -> list[int]:
            return [each async for each in streaming(source).count.remote(number)]

        return await asyncio.gather(read(1000), read(10), read(0))

    assert asyncio.run(main()) == [list(range(1000)), list(range(10)), []]


def test_threads_read_at_once(source: Any) -> None:
    read: dict[int, list[int]] = {}

    def work(number: int) -> None:
        read[number] = list(streaming(source).count_later.remote(500 + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert read == {number: list(range(500 + number)) for number in range(4)}


@pytest.mark.parametrize("method", ["double", "double_in_thread"])
def test_a_deployment_passes_a_stream_on(relay: Any, method: str) -> None:
    assert list(getattr(streaming(relay), method).remote(1000)) == list(range(0, 2000, 2))


def test_a_deployment_sums_a_stream_up(relay: Any) -> None:
    assert relay.total.remote(1000).result() == 499_500


def test_a_slow_reader_stops_its_producer(source: Any) -> None:
    response = streaming(source).endless.remote()
    assert next(response) == 1
    ahead = stands_still(source)
    assert 1 < ahead <= 300
    assert [next(response) for _ in range(1000)] == list(range(2, 1002))
    response.cancel()
    wait_for_end(source, "cancelled", "closed")


@pytest.mark.parametrize("how", ["break", "collected", "cancel"])
@pytest.mark.parametrize("method", ["endless", "endless_in_thread"])
def test_a_stream_that_nobody_wants_any_more_is_closed(source: Any, method: str, how: str) -> None:
    call = getattr(streaming(source), method)
    if how == "break":
        for _ in call.remote():
            break
    else:
        response = call.remote()
        assert next(response) == 1
        if how == "cancel":
            response.cancel()
            with pytest.raises(RequestCancelledError):
                next(response)
        del response
        gc.collect()
    wait_for_end(source, *(["closed"] if method == "endless_in_thread" else ["cancelled", "closed"]))


def test_a_killed_replica_leaves_the_items_so_far_and_an_error(source: Any) -> None:
    response = streaming(source).pid_then_hang.remote()
    replica = next(response)
    assert next(response) == 0
    assert next(response) == 1
    assert next(response) == 2
    os.kill(replica, signal.SIGKILL)
    with pytest.raises(ReplicaDiedError, match="died while it was working on request"):
        next(response)
    with pytest.raises(StopIteration):
        next(response)
    assert list(streaming(source).count.remote(3)) == [0, 1, 2]


def test_a_reader_that_is_killed_takes_its_stream_with_it(relay: Any) -> None:
    response = streaming(relay).endless.remote()
    assert next(response) == 1
    os.kill(relay.pid.remote().result(), signal.SIGKILL)
    with pytest.raises(ReplicaDiedError):
        list(response)
    wait_for_end(source_of_relay(), "cancelled", "closed")


def test_an_update_lets_a_stream_go_on(source: Any) -> None:
    response = streaming(source).endless.remote()
    assert next(response) == 1
    update = threading.Thread(
        target=lambda: serve.run(deployments.Source.bind(), name="source", route_prefix=None), daemon=True
    )
    update.start()
    wait_until_sync(lambda: source.seen.remote().result() == (0, []), within_s=20, what="the successor")
    assert [next(response) for _ in range(1000)] == list(range(2, 1002))
    response.cancel()
    update.join(20)
    assert not update.is_alive()


def test_cancelling_goes_through_a_deployment(relay: Any) -> None:
    response = streaming(relay).endless.remote()
    assert [next(response) for _ in range(3)] == [1, 2, 3]
    response.cancel()
    wait_for_end(source_of_relay(), "cancelled", "closed")


def test_errors_keep_their_type_and_mismatches_say_what_to_do(source: Any) -> None:
    with pytest.raises(TypeError, match=r"Called method 'plain' with `handle.options\(stream=True\)` but it did not"):
        next(streaming(source).plain.remote())
    with pytest.raises(TypeError, match=r"Method 'count' returned a generator. You must use `handle.options\(stream"):
        source.count.remote(1).result()


# Over HTTP


@pytest.mark.parametrize("path", ["count", "count-in-thread"])
def test_a_fastapi_endpoint_passes_a_stream_on(path: str) -> None:
    serve.run(deployments.Front.bind(deployments.Source.bind()), name="front", route_prefix="/front")
    text = httpx.get(f"{serve_url()}/front/{path}?number=500", timeout=20).text
    assert text.splitlines() == [str(number) for number in range(500)]
    serve.delete("front")


@pytest.mark.usefixtures("relay")
def test_a_client_that_does_not_read_stops_the_producer_and_one_that_leaves_cancels_it() -> None:
    with httpx.stream("GET", serve_url() + "/relay", timeout=20) as answer:
        assert next(answer.iter_raw(1000))
        ahead = stands_still(source_of_relay())
        assert ahead * deployments.CHUNK_SIZE_BYTES < 30 * MB
    wait_for_end(source_of_relay(), "cancelled", "closed")


def test_a_stream_through_a_deployment_stays_flat_in_memory(relay: Any) -> None:
    processes = [psutil.Process(relay.pid.remote().result())]
    count = 3000

    def read() -> int:
        total = 0
        with httpx.stream("GET", f"{serve_url()}/relay?chunks={count}", timeout=30) as answer:
            for each in answer.iter_raw():
                total += len(each)
        return total

    assert read() == count * deployments.CHUNK_SIZE_BYTES
    before = [each.memory_info().rss for each in processes]
    assert read() == count * deployments.CHUNK_SIZE_BYTES
    grown = [each.memory_info().rss - size for each, size in zip(processes, before, strict=True)]
    assert max(grown) < 20 * MB, grown


# What the reference shows


def test_the_reference_streams_numbers_and_stops_when_its_client_leaves() -> None:
    handle = serve.run(deployments.StreamingResponder.bind(), name="responder", route_prefix="/responder")
    url = serve_url() + "/responder"
    assert httpx.get(url + "?max=10", timeout=20).text == "0123456789"
    with httpx.stream("GET", url, timeout=20) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_text()).startswith("0")
    wait_until_sync(lambda: handle.was_cancelled.remote().result(), within_s=10, what="the cancellation")
    serve.delete("responder")


def test_the_reference_composes_streams() -> None:
    application = deployments.Caller.bind(deployments.Streamer.bind())
    handle: Any = serve.run(application, name="caller", route_prefix=None)
    response = handle.options(stream=True).remote(10)
    assert isinstance(response, serve.DeploymentResponseGenerator)
    assert list(response) == list(range(10))
    serve.delete("caller")


def test_the_reference_answers_a_prompt_word_by_word() -> None:
    serve.run(deployments.Textbot.bind(), name="textbot", route_prefix="/textbot")
    url = serve_url() + "/textbot/"
    with httpx.stream("POST", url, params={"prompt": "tell me a story"}, timeout=20) as answer:
        assert "".join(answer.iter_text()).split() == ["TELL", "ME", "A", "STORY"]
    serve.delete("textbot")
