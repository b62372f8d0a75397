"""Topics: whole values with versions, pushed to whoever subscribed when they change."""

from itertools import count

from salver.schema.messages import Snapshot, TopicValue
from salver.transport.peer import Peer, encode_message


class Snapshots:
    """The published topics and their subscribers."""

    def __init__(self) -> None:
        self._versions = count(1)
        self._values: dict[str, Snapshot] = {}
        self._subscribers: dict[str, set[Peer]] = {}

    def publish(self, topic: str, value: TopicValue) -> None:
        """Push a topic's value, if it is another than before."""
        last = self._values.get(topic)
        if last is not None and last.value == value:
            return
        snapshot = self._values[topic] = Snapshot(topic, next(self._versions), value)
        subscribers = self._subscribers.get(topic)
        if subscribers:
            body = encode_message(snapshot)
            for peer in subscribers:
                peer.tell_encoded(body)

    def withdraw(self, topic: str, value: TopicValue) -> None:
        """Push a last value and keep the topic only while somebody listens."""
        self.publish(topic, value)
        if not self._subscribers.get(topic):
            self._values.pop(topic, None)

    def subscribe(self, peer: Peer, topic: str, default: TopicValue) -> None:
        """Send a peer the topic's value now and at each change."""
        self._subscribers.setdefault(topic, set()).add(peer)
        snapshot = self._values.get(topic)
        if snapshot is None:
            snapshot = self._values[topic] = Snapshot(topic, next(self._versions), default)
        peer.tell(snapshot)

    def unsubscribe(self, peer: Peer, topic: str) -> None:
        """Stop sending a topic to a peer."""
        self._subscribers.get(topic, set()).discard(peer)

    def forget(self, peer: Peer) -> None:
        """Stop sending anything to a peer that is gone."""
        for subscribers in self._subscribers.values():
            subscribers.discard(peer)
