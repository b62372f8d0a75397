"""Topics: whole values with versions, pushed to whoever subscribed when they change."""

from itertools import count

from salver.schema.messages import Snapshot
from salver.schema.topics import TopicValue
from salver.transport.peer import Peer, encode_message


class Snapshots:
    """The published topics and their subscribers."""

    def __init__(self) -> None:
        self._versions = count(1)
        self._values: dict[str, Snapshot] = {}
        self._subscribers: dict[str, set[Peer]] = {}

    def is_watched(self, topic: str) -> bool:
        """Say whether anybody subscribed to a topic."""
        return topic in self._subscribers

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

    def outdate(self, topic: str) -> None:
        """Forget a topic's value: whoever subscribes next gets a new one."""
        self._values.pop(topic, None)

    def withdraw(self, topic: str, value: TopicValue) -> None:
        """Push a topic's last value and forget it."""
        if topic in self._values:
            self.publish(topic, value)
            del self._values[topic]

    def subscribe(self, peer: Peer, topic: str, default: TopicValue | None) -> None:
        """Send a peer the topic's value now and at each change.

        Args:
            default: The value of a topic that was not published; None while nobody can say.
        """
        self._subscribers.setdefault(topic, set()).add(peer)
        if (value := self._values.get(topic)) is not None:
            peer.tell(value)
        elif default is not None:
            peer.tell(Snapshot(topic, next(self._versions), default))

    def unsubscribe(self, peer: Peer, topic: str) -> None:
        """Stop sending a topic to a peer."""
        subscribers = self._subscribers.get(topic)
        if subscribers is not None:
            subscribers.discard(peer)
            if not subscribers:
                del self._subscribers[topic]

    def forget(self, peer: Peer) -> None:
        """Stop sending anything to a peer that is gone."""
        for topic in [topic for topic, subscribers in self._subscribers.items() if peer in subscribers]:
            self.unsubscribe(peer, topic)
