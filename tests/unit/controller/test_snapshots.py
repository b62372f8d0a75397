"""Topics and who hears of them."""

import msgspec

from salver.controller.snapshots import Snapshots
from salver.schema.messages import Message, Snapshot
from salver.schema.topics import Replicas

NONE = Replicas(unavailable="it does not exist")


class Listener:
    """Keeps what it is told; stands in for a peer."""

    def __init__(self) -> None:
        self.heard: list[Snapshot] = []

    def tell(self, message: Message) -> None:
        assert isinstance(message, Snapshot)
        self.heard.append(message)

    def tell_encoded(self, body: bytes) -> None:
        self.heard.append(msgspec.msgpack.decode(body, type=Snapshot))

    @property
    def values(self) -> list[object]:
        return [each.value for each in self.heard]


def subscribed(snapshots: Snapshots, topic: str = "t") -> Listener:
    listener = Listener()
    snapshots.subscribe(listener, topic, NONE)  # type: ignore[arg-type]
    return listener


def test_a_subscriber_hears_the_value_now_and_at_each_change() -> None:
    snapshots = Snapshots()
    snapshots.publish("t", Replicas(max_queued_requests=1))
    listener = subscribed(snapshots)
    snapshots.publish("t", Replicas(max_queued_requests=2))
    assert listener.values == [Replicas(max_queued_requests=1), Replicas(max_queued_requests=2)]


def test_versions_grow() -> None:
    snapshots = Snapshots()
    listener = subscribed(snapshots)
    for number in range(3):
        snapshots.publish("t", Replicas(max_queued_requests=number))
    versions = [each.version for each in listener.heard]
    assert versions == sorted(set(versions))


def test_an_equal_value_is_not_sent_again() -> None:
    snapshots = Snapshots()
    listener = subscribed(snapshots)
    for _ in range(3):
        snapshots.publish("t", Replicas())
    assert len(listener.heard) == 2


def test_an_unpublished_topic_has_its_default_and_leaves_nothing_behind() -> None:
    snapshots = Snapshots()
    assert subscribed(snapshots).values == [NONE]
    assert snapshots._values == {}


def test_a_withdrawn_topic_ends_with_a_last_value() -> None:
    snapshots = Snapshots()
    listener = subscribed(snapshots)
    snapshots.publish("t", Replicas())
    snapshots.withdraw("t", NONE)
    snapshots.withdraw("t", NONE)
    assert listener.values == [NONE, Replicas(), NONE]
    assert subscribed(snapshots).values == [NONE]


def test_topics_are_apart() -> None:
    snapshots = Snapshots()
    listener = subscribed(snapshots, "one")
    snapshots.publish("two", Replicas())
    assert listener.values == [NONE]


def test_who_unsubscribes_hears_nothing_more() -> None:
    snapshots = Snapshots()
    listener, other = subscribed(snapshots), subscribed(snapshots)
    snapshots.unsubscribe(listener, "t")  # type: ignore[arg-type]
    snapshots.unsubscribe(listener, "unknown")  # type: ignore[arg-type]
    snapshots.publish("t", Replicas())
    assert (len(listener.heard), len(other.heard)) == (1, 2)


def test_a_peer_that_is_gone_is_forgotten_in_all_topics() -> None:
    snapshots = Snapshots()
    listener = subscribed(snapshots, "one")
    snapshots.subscribe(listener, "two", NONE)  # type: ignore[arg-type]
    assert snapshots.is_watched("one")
    snapshots.forget(listener)  # type: ignore[arg-type]
    assert (snapshots.is_watched("one"), snapshots.is_watched("two")) == (False, False)
