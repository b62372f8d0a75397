"""How a router that a user wrote takes part in ours."""

from collections.abc import Callable

import msgspec
import pytest

from salver.handle.channel import Channel
from salver.handle.outgoing import Hints
from salver.handle.request_router.api import PendingRequest, RunningReplica
from salver.handle.request_router.custom import Groups
from salver.schema.errors import BackPressureError, DeploymentUnavailableError
from salver.schema.topics import Replicas
from tests.unit.handle.doubles import USER_CODE, Choose, Net, Request, UserCode, outcomes, routed, running


def by_name(*groups: str) -> Callable[[list[RunningReplica], PendingRequest], Groups]:
    """Return user code that ranks replicas by name, as far as it is offered them; each letter is one."""

    def choose(replicas: list[RunningReplica], _request: PendingRequest) -> Groups:
        known = {each.replica_id.unique_id: each.replica_id for each in replicas}
        return [[known[name] for name in group if name in known] for group in groups]

    return choose


class World:
    """Replicas a, b and c, and a caller whose router is the user's."""

    def __init__(self, choose: Choose, limit: int = 1) -> None:
        self.net = Net()
        self.replicas = {name: self.net.replica(name, limit) for name in "abc"}
        self.code = UserCode(choose)
        self.router = self.net.router(user_code=self.code)
        self.router.update(self.net.snapshot(router=USER_CODE))

    def route(self, *names: str) -> list[Request]:
        requests = routed(self.router, *names)
        self.net.settle()
        return requests

    def running(self) -> dict[str, list[str]]:
        return {name: running(each) for name, each in self.replicas.items()}

    def finish(self, name: str) -> None:
        self.replicas[name].finish()
        self.net.settle()

    def hooks(self, name: str) -> list[object]:
        return [argument for hook, argument in self.code.hooks if hook == name]


def test_the_first_ranked_group_with_capacity_wins() -> None:
    world = World(by_name("a", "bc"))
    world.route("1", "2", "3")
    assert world.running()["a"] == ["1"]
    assert sorted(world.running()["b"] + world.running()["c"]) == ["2", "3"]


def test_when_none_has_room_the_request_waits_for_those_that_were_named() -> None:
    world = World(by_name("a", "b"))
    world.route("1", "2", "3", "4")
    assert world.running() == {"a": ["1"], "b": ["2"], "c": []}
    world.finish("b")
    assert world.running() == {"a": ["1"], "b": ["3"], "c": []}


def test_user_code_that_names_one_is_offered_the_others_that_have_room() -> None:
    world = World(lambda replicas, _request: [[replicas[0].replica_id]])
    world.route("1", "2")
    assert world.running() == {"a": ["1"], "b": ["2"], "c": []}
    assert [asked for asked, name in world.code.choices if name == "2"] == [["a", "b", "c"], ["b", "c"]]


def test_a_waiting_request_is_chosen_for_again_when_somebody_else_gets_room() -> None:
    world = World(lambda replicas, _request: [[replicas[0].replica_id]])
    world.route("1", "2", "3", "4")
    assert world.router.num_waiting == 1
    asked = len(world.code.choices)
    world.finish("c")
    assert world.running() == {"a": ["1"], "b": ["2"], "c": ["4"]}
    assert [each for each, _ in world.code.choices[asked:]] == [["c"]]


def test_what_was_declined_is_not_offered_for_ever() -> None:
    world = World(by_name("a"))
    world.route("1", "2")
    asked = len(world.code.choices)
    for number in range(5):
        world.router.on_freed(world.router._choices[1])
        world.net.settle()
        assert len(world.code.choices) == asked, number


def test_a_request_behind_one_that_waits_for_another_replica_is_not_held_up() -> None:
    world = World(lambda _replicas, request: by_name(request.metadata.request_id[0])(_replicas, request))
    world.route("a1", "a2", "b1", "c1")
    assert world.running() == {"a": ["a1"], "b": ["b1"], "c": ["c1"]}


def test_a_new_replica_is_offered_to_those_that_wait() -> None:
    world = World(lambda replicas, _request: [[each.replica_id for each in replicas]])
    world.route("1", "2", "3", "4")
    world.net.replica("d", 1)
    world.router.update(world.net.snapshot(router=USER_CODE))
    world.net.settle()
    assert running(world.net.replicas["d"]) == ["4"]


def test_a_request_whose_replicas_are_all_gone_is_chosen_for_anew() -> None:
    world = World(by_name("a"))
    world.route("1", "2")
    world.replicas["a"].retired = True
    world.code._choose = by_name("b")
    world.router.update(world.net.snapshot(router=USER_CODE))
    world.net.settle()
    assert world.running()["b"] == ["2"]


@pytest.mark.parametrize("answer", [None, [], [[]]])
def test_where_user_code_fails_or_names_nobody_the_default_is_used(answer: Groups | None) -> None:
    world = World(lambda _replicas, _request: answer)
    requests = world.route("1", "2", "3", "4")
    world.net.run_out()
    assert outcomes(requests) == ["answered"] * 4
    assert world.code.complaints == ([] if answer is None else ["no replica"] * 4)


def test_requests_that_came_before_the_first_replica_are_chosen_for() -> None:
    net = Net()
    code = UserCode(by_name("b"))
    router = net.router(user_code=code)
    requests = routed(router, "1")
    router.update(Replicas(router=USER_CODE))
    assert code.choices == []
    net.replica("a")
    net.replica("b")
    router.update(net.snapshot(router=USER_CODE))
    net.settle()
    assert running(net.replicas["b"]) == ["1"]
    net.run_out()
    assert outcomes(requests) == ["answered"]


def test_only_requests_that_were_thought_about_count_against_the_queues_limit() -> None:
    world = World(by_name("abc"))
    world.router.update(world.net.snapshot(router=USER_CODE, max_queued_requests=1))
    world.net.tasks.at_once = False
    requests = routed(world.router, *"12345")
    assert outcomes(requests) == ["waits"] * 5
    world.net.tasks.at_once = True
    world.net.tasks.go_on()
    world.net.settle()
    assert outcomes(requests) == ["waits"] * 4 + ["refused"]
    assert isinstance(requests[4].error, BackPressureError)
    assert world.router.num_waiting == 1


def test_a_cancelled_request_is_forgotten_wherever_it_is() -> None:
    world = World(by_name("a"))
    first, second = world.route("1", "2")
    world.net.tasks.at_once = False
    (third,) = world.route("3")
    for each in (first, second, third):
        world.router.cancel(each)
    world.net.tasks.go_on()
    world.net.settle()
    assert world.running()["a"] == []
    assert world.router._custom is not None
    assert world.router._custom._tickets == {}
    assert world.router._custom.num_new == 0


def test_the_hooks_tell_of_a_requests_life() -> None:
    world = World(by_name("a"))
    world.route("1")
    replica = world.replicas["a"].id
    assert [each.metadata.request_id for each in world.hooks("on_request_routed")] == ["1"]  # type: ignore[attr-defined]
    assert world.hooks("on_send_request") == [replica]
    assert world.hooks("on_request_completed") == []
    world.finish("a")
    for hook in ("on_request_completed", "decrement_queue_len_cache", "on_new_queue_len_info"):
        assert world.hooks(hook) == [replica]


def test_a_dead_replica_is_dropped_at_once_and_told_of() -> None:
    world = World(by_name("a", "b"))
    world.route("1")
    world.net.kill(world.replicas["a"])
    assert world.hooks("on_replica_actor_unavailable") == [world.replicas["a"].id]
    assert world.hooks("on_replica_actor_died") == []
    world.route("2")
    assert world.running()["b"] == ["2"]
    world.router.update(world.net.snapshot(router=USER_CODE))
    assert world.hooks("on_replica_actor_died") == [world.replicas["a"].id]


def test_user_code_that_cannot_be_loaded_is_done_without() -> None:
    world = World(by_name("a"))
    world.net.tasks.at_once = False
    requests = world.route("1", "2", "3")
    assert world.router._custom is not None
    world.router._custom.failed()
    world.net.tasks.at_once = True
    world.net.tasks.go_on()
    world.net.settle()
    assert [len(each) for each in world.running().values()] == [1, 1, 1]
    assert world.code.closed
    world.router.update(world.net.snapshot(router=USER_CODE))
    world.net.run_out()
    assert outcomes(requests) == ["answered"] * 3
    assert world.router._custom is None


def test_new_statistics_of_a_replica_reach_user_code_and_what_waits_is_chosen_for_again() -> None:
    def cool(replicas: list[RunningReplica], _request: PendingRequest) -> Groups:
        return [[each.replica_id for each in replicas if each.routing_stats.get("heat", 0) < 9]]

    net = Net()
    net.replica("a")
    router = net.router(user_code=UserCode(cool))

    def tell(**stats: float) -> None:
        entries = [msgspec.structs.replace(each.entry, routing_stats=stats) for each in net.replicas.values()]
        router.update(Replicas(replicas=tuple(entries), router=USER_CODE))

    tell()
    [_, waiting] = routed(router, "1", "2")
    net.replica("b")
    tell(heat=10)
    net.settle()
    assert running(net.replicas["b"]) == []
    tell(heat=5)
    net.settle()
    assert running(net.replicas["b"]) == ["2"]
    assert waiting.outcome == "waits"


def test_what_waits_is_refused_when_the_deployment_is_gone() -> None:
    world = World(by_name("a"))
    requests = world.route("1", "2")
    world.router.update(Replicas(unavailable="it was deleted"))
    assert isinstance(requests[1].error, DeploymentUnavailableError)


def test_a_pending_request_says_what_is_asked_and_by_whom() -> None:
    seen: list[PendingRequest] = []

    def choose(replicas: list[RunningReplica], request: PendingRequest) -> Groups:
        seen.append(request)
        return [[each.replica_id for each in replicas]]

    world = World(choose)
    world.router.route(Request("r1", hints=Hints("m1", "s1"), args=("hello",)))
    [request] = seen
    metadata = request.metadata
    assert (metadata.request_id, metadata.multiplexed_model_id, metadata.session_id) == ("r1", "m1", "s1")
    assert (request.args, request.kwargs, request.resolved) == (("hello",), {}, True)
    assert request.future.result(0).replica_id in {each.id for each in world.replicas.values()}


def test_room_that_a_full_replica_calls_about_is_offered_to_those_that_were_not_asked_about_it() -> None:
    def wanted_or_any(replicas: list[RunningReplica], request: PendingRequest) -> Groups:
        wanted = [each.replica_id for each in replicas if each.replica_id.unique_id == request.metadata.request_id[0]]
        return [wanted or [replicas[0].replica_id]]

    net = Net()
    first, second = net.replica("a"), net.replica("b")
    other, router = net.router(), net.router(user_code=UserCode(wanted_or_any))
    other.update(Replicas(replicas=(second.entry,)))
    routed(other, "x")
    net.settle()
    router.update(net.snapshot(router=USER_CODE))
    routed(router, "a1")
    [refused] = routed(router, "b1")
    net.settle()
    routed(router, "a2")
    router.cancel(refused)
    net.settle()
    second.finish()
    net.settle()
    assert (running(first), running(second)) == (["a1"], ["a2"])


class Counted(Request):
    """A request that counts how often it was sent."""

    __slots__ = ("sent",)

    def write(self, channel: Channel, stream: int, flags: int) -> None:
        self.sent = getattr(self, "sent", 0) + 1
        super().write(channel, stream, flags)


def test_a_request_that_was_refused_asks_for_room_elsewhere_and_is_not_sent_about() -> None:
    net = Net()
    replicas = [net.replica(name) for name in "ab"]
    other, router = net.router(), net.router(user_code=UserCode(lambda all_, _request: [[all_[0].replica_id]]))
    other.update(net.snapshot())
    router.update(net.snapshot(router=USER_CODE))
    routed(router, "opens a", "opens b")
    net.run_out()
    routed(other, "1", "2")
    net.settle()
    request = Counted("3")
    router.route(request)
    net.settle()
    assert request.sent == 1
    replicas[1].finish()
    net.settle()
    assert running(replicas[1]) == ["3"]
    assert request.sent == 2
