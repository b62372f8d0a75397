"""Routers in real processes: policies by name, classes of users in handles and in proxies, and broken classes."""

import os
import signal
import subprocess
from collections import Counter

import httpx
import pytest

from tests.system.serving import Place, Run
from tests.waiting import wait_until_sync

APP = """
import os
import salver as serve

@serve.deployment(num_replicas=3, max_ongoing_requests=10, request_router_config={config})
class Model:
    async def __call__(self, request=None) -> str:
        return str(os.getpid())

@serve.deployment
class Front:
    def __init__(self, model):
        self.model = model

    async def __call__(self, request) -> str:
        prompt = request.query_params["prompt"]
        return await self.model.options(session_id=request.query_params.get("session", "")).remote(prompt)

app = Model.bind()
composed = Front.bind(Model.bind())
"""

ROUTERS = '''
import time
from salver.request_router import FIFOMixin, LocalityMixin, RequestRouter


class ByStatistics(FIFOMixin, LocalityMixin, RequestRouter):
    """The documented example: near replicas, sorted by a statistic of their own."""

    async def choose_replicas(self, candidate_replicas, pending_request):
        candidates = self.apply_locality_routing(pending_request)
        return [sorted(candidates, key=lambda r: r.routing_stats.get("load", 0))]


class ByPrefix(RequestRouter):
    """Requests that begin alike go to the same replica."""

    def initialize_state(self, length):
        self.length = length

    async def choose_replicas(self, candidate_replicas, pending_request):
        argument = pending_request.args[0]
        text = argument if isinstance(argument, str) else argument.body.decode()
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id)
        first = sum(map(ord, text[: self.length])) % len(ordered)
        return [[each] for each in ordered[first:] + ordered[:first]]


class Raises(RequestRouter):
    async def choose_replicas(self, candidate_replicas, pending_request):
        raise ZeroDivisionError("routers can be broken")


class Hangs(RequestRouter):
    choice_timeout_s = 0.1

    async def choose_replicas(self, candidate_replicas, pending_request):
        time.sleep(3)


class AnswersNonsense(RequestRouter):
    async def choose_replicas(self, candidate_replicas, pending_request):
        return 42


class CannotBeMade(RequestRouter):
    def initialize_state(self):
        raise RuntimeError("no state for me")

    async def choose_replicas(self, candidate_replicas, pending_request):
        return [candidate_replicas]
'''


def start(place: Place, config: str, target: str = "main:app") -> Run:
    """Run the application with a router."""
    place.write("routers.py", ROUTERS)
    place.write("main.py", APP.replace("{config}", config))
    return place.run(target)


def answers(run: Run, count: int, **options: object) -> Counter[str]:
    """Ask several times; return how often each replica answered."""
    with httpx.Client(timeout=30) as client:
        replies = [client.post(run.url(), **options) for _ in range(count)]  # type: ignore[arg-type]
    assert [each.status_code for each in replies] == [200] * count, run.output
    return Counter(each.text for each in replies)


def test_round_robin_gives_every_replica_the_same_number(place: Place) -> None:
    with start(place, '{"request_router_class": "round_robin"}') as run:
        assert sorted(answers(run, 12).values()) == [4, 4, 4]


def test_a_session_stays_with_its_replica_over_http_and_by_handles(place: Place) -> None:
    config = '{"request_router_class": "salver.experimental.consistent_hash_router:ConsistentHashRouter"}'
    with start(place, config) as run:
        stays = {name: answers(run, 5, headers={"x-session-id": name}) for name in ("a", "b", "c", "d", "e", "f")}
        assert [len(each) for each in stays.values()] == [1] * 6
        assert len(set().union(*stays.values())) > 1
    with start(place, config, "main:composed") as run:
        for name in ("a", "b"):
            assert len(answers(run, 5, params={"prompt": "x", "session": name})) == 1


@pytest.mark.parametrize("target", ["main:app", "main:composed"])
def test_a_users_router_chooses_by_the_beginning_of_a_prompt(place: Place, target: str) -> None:
    config = '{"request_router_class": "routers:ByPrefix", "request_router_kwargs": {"length": 5}}'
    with start(place, config, target) as run:

        def ask(prompt: str) -> Counter[str]:
            return answers(run, 4, params={"prompt": prompt}, content=prompt)

        # The first requests may come before the class is loaded.
        wait_until_sync(lambda: len(ask("hello, Ada")) == 1, within_s=20, what="a router")
        assert ask("hello, Bob") == ask("hello, Ada")
        assert len(ask("hello") + ask("iello") + ask("jello")) == 3
        assert "cannot be used" not in run.output


def test_a_users_router_ranks_by_statistics_of_replicas(place: Place) -> None:
    with start(place, '{"request_router_class": "routers:ByStatistics"}') as run:
        assert sum(answers(run, 10).values()) == 10
        assert "request router" not in run.output


@pytest.mark.parametrize("name", ["Raises", "Hangs", "AnswersNonsense", "CannotBeMade"])
def test_a_broken_router_is_reported_and_done_without(place: Place, name: str) -> None:
    with start(place, f'{{"request_router_class": "routers:{name}"}}') as run:
        answers(run, 20)
        run.wait_for("The request router of")
        answers(run, 5)
        assert run.output.count("The request router of") == 1
        if name == "Raises":
            assert "ZeroDivisionError: routers can be broken" in run.output


def test_a_router_of_a_script_goes_to_the_proxies(place: Place) -> None:
    place.write(
        "script.py",
        """
        import os
        import sys
        import salver as serve
        from salver.request_router import RequestRouter

        class First(RequestRouter):
            async def choose_replicas(self, candidate_replicas, pending_request):
                return [sorted(candidate_replicas, key=lambda replica: replica.replica_id)[:1]]

        @serve.deployment(num_replicas=2, request_router_config={"request_router_class": First})
        class Model:
            def __call__(self, request=None) -> int:
                return os.getpid()

        if __name__ == "__main__":
            serve.start(http_options={"port": 0})
            handle = serve.run(Model.bind())
            assert len({handle.remote().result() for _ in range(10)}) == 1
            print("one replica answered", flush=True)
            sys.stdin.read()
        """,
    )
    with place.start("script.py", stdin=subprocess.PIPE) as run:
        run.wait_for("one replica answered")
        wait_until_sync(lambda: len(answers(run, 5)) == 1, within_s=20, what="a router")
        assert run.process.stdin is not None
        run.process.stdin.close()
        assert run.exit_code() == 0, run.output
        assert "destroyed" not in run.output
        assert "Traceback" not in run.output


@pytest.mark.parametrize(
    "config", ['{"request_router_class": "consistent_hash"}', '{"request_router_class": "routers:ByStatistics"}']
)
def test_requests_go_on_when_a_replica_dies(place: Place, config: str) -> None:
    with start(place, config) as run:
        before = answers(run, 20)
        os.kill(int(next(iter(before))), signal.SIGKILL)
        with httpx.Client(timeout=30) as client:
            assert [client.get(run.url()).status_code for _ in range(20)] == [200] * 20
        wait_until_sync(lambda: len(run.named("Model#")) == 3, within_s=20, what="a successor")
        assert sum(answers(run, 10).values()) == 10
