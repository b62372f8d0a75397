"""The router and requests for models: it asks what is known of models, and tells what it does."""

from typing import Any

import msgspec

from salver.handle.outgoing import Hints
from salver.handle.router import Router
from salver.schema.topics import Replicas
from tests.unit.handle.doubles import Net, Replica, Request, Sequence, running


def told(net: Net, **models: str) -> Replicas:
    """Return a snapshot in which replicas say that they hold these models, one letter each."""
    entries = [
        msgspec.structs.replace(each.entry, multiplexed_model_ids=tuple(models.get(name, "")))
        for name, each in net.replicas.items()
        if each.alive
    ]
    return Replicas(replicas=tuple(entries))


def ask(router: Router, *models: str) -> list[Request]:
    """Route requests for models, "-" for none; each has its number and its model as its name."""
    requests = []
    for number, model_id in enumerate(models):
        request = Request(f"{number}{model_id}")
        request.hints = Hints("" if model_id == "-" else model_id, "a session")
        requests.append(request)
        router.route(request)
    return requests


def scene(limit: int = 5, **models: str) -> tuple[Net, Router, list[Replica]]:
    net = Net()
    replicas = [net.replica(name, limit) for name in models]
    router = net.router(Sequence(0.0))
    router.update(told(net, **models))
    return net, router, replicas


def served(net: Net, replicas: list[Replica]) -> list[list[str]]:
    net.settle()
    return [running(each) for each in replicas]


def test_rule_routing_replicas_that_have_the_id_come_first() -> None:
    net, router, replicas = scene(a="xy", b="z")
    ask(router, *"zzxz")
    assert served(net, replicas) == [["2x"], ["0z", "1z", "3z"]]


def test_rule_routing_replicas_with_the_fewest_models_come_next() -> None:
    net, router, replicas = scene(a="xy", b="z", c="vwx")
    ask(router, *"nmn")
    assert served(net, replicas) == [["1m"], ["0n", "2n"], []]


def test_rule_routing_without_id_as_ever() -> None:
    net, router, replicas = scene(a="x", b="")
    ask(router, *"----")
    assert [len(each) for each in served(net, replicas)] == [2, 2]


def test_a_full_holder_is_not_waited_for() -> None:
    net, router, replicas = scene(1, a="x", b="y")
    ask(router, *"xx")
    assert served(net, replicas) == [["0x"], ["1x"]]
    assert router.num_waiting == 0


def test_a_replica_that_becomes_free_takes_the_oldest_that_it_has_the_model_of() -> None:
    net, router, replicas = scene(1, a="x", b="y")
    ask(router, *"xyyxx")
    assert served(net, replicas) == [["0x"], ["1y"]]
    replicas[0].finish()
    assert served(net, replicas) == [["3x"], ["1y"]]
    replicas[1].finish()
    assert served(net, replicas) == [["3x"], ["2y"]]
    replicas[1].finish()
    assert served(net, replicas) == [["3x"], ["4x"]]
    assert router.num_waiting == 0


def test_a_held_slot_is_used_for_a_model_that_is_there() -> None:
    net, router, (replica,) = scene(1, a="x")
    busy = net.router()
    busy.update(net.snapshot())
    ask(busy, "-")
    net.settle()
    ask(router, *"yx")
    net.settle()
    replica.finish()
    assert served(net, [replica]) == [["1x"]]


def test_a_dead_replica_holds_nothing() -> None:
    net, router, replicas = scene(a="x", b="y")
    ask(router, "x", "y")
    net.settle()
    net.kill(replicas[0])
    ask(router, "x")
    assert served(net, replicas[1:]) == [["1y", "0x"]]
    assert set(_known(router)) == set(router._choices)


def test_a_replica_that_left_holds_nothing() -> None:
    net, router, replicas = scene(a="x", b="y")
    replicas[0].retired = True
    router.update(net.snapshot())
    ask(router, "x")
    assert served(net, replicas) == [[], ["0x"]]
    assert set(_known(router)) == set(router._choices)


def test_a_cancelled_request_at_the_head_of_the_queue_is_skipped() -> None:
    net, router, (replica,) = scene(1, a="x")
    requests = ask(router, *"xyyx")
    router.cancel(requests[1])
    router.cancel(requests[3])
    net.settle()
    replica.finish()
    assert served(net, [replica]) == [["2y"]]
    assert router.num_waiting == 0


def test_a_channel_has_the_last_entry_of_its_replica() -> None:
    net, router, _ = scene(a="x")
    router.update(told(net, a="yz"))
    assert [each.entry.multiplexed_model_ids for each in router._choices] == [("y", "z")]


def _known(router: Router) -> Any:
    return router._affinity._known
