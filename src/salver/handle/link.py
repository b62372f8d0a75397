"""A process's line to the controller: questions, and snapshots of topics.

A line that breaks is opened again as soon as a controller listens, and tells it what is subscribed to. What is known
stays true meanwhile: requests do not need the controller.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from typing import Final

from salver.lib.clock import MonotonicClock
from salver.lib.tasks import Tasks
from salver.schema.errors import Disconnected, ProtocolError
from salver.schema.messages import Message, Snapshot, Subscribe, Unsubscribe
from salver.schema.topics import TopicValue
from salver.transport.peer import Answer, Peer
from salver.transport.sockets import Dial, dial

OnValue = Callable[[TopicValue], None]
OnAsk = Callable[[Message], Awaitable[Message]]

FIRST_DELAY_S: Final = 0.05
MAX_DELAY_S: Final = 2.0
MAX_WAIT_S: Final = 20.0
"""How long a question waits for a controller that is gone; one that was not answered is asked again."""


def redial_delay_s(attempt: int, chance: float) -> float:
    """Return how long to wait before an attempt to open the line again.

    It doubles from attempt to attempt, and is up to a half shorter by chance, so that not all processes come at once.

    Args:
        attempt: How many failed before it.
        chance: From 0 to 1.
    """
    return float(min(FIRST_DELAY_S * 2 ** min(attempt, 16), MAX_DELAY_S)) * (1 - chance / 2)


class ControllerLink:
    """The line to the controller.

    Args:
        on_ask: Answers what the controller asks this process; None where it never asks.
        on_back: Called when the line is open again: to another controller, which knows nothing of this process.
        dial: Opens the connection.
    """

    def __init__(
        self,
        *,
        role: str,
        name: str,
        tasks: Tasks,
        on_ask: OnAsk | None = None,
        on_back: Callable[[], None] | None = None,
        dial: Dial = dial,
    ) -> None:
        self._peer = Peer(self, role=role, name=name, tasks=tasks)
        self._answer = on_ask
        self._back = on_back
        self._dial = dial
        self._clock = MonotonicClock()
        self._tasks = tasks
        self._address = ""
        self._open = asyncio.Event()
        self._closed = False
        self._subscribers: dict[str, list[OnValue]] = {}
        self._last: dict[str, Snapshot] = {}

    async def connect(self, address: str) -> None:
        """Open the line, for the first time or again; it sends what is subscribed to.

        Raises:
            Disconnected: No controller listens there.
        """
        self._address = address
        await self._dial(address, self._peer)
        self._address = address
        self._open.set()
        # Another controller counts its versions anew.
        self._last.clear()
        for topic in self._subscribers:
            self._peer.tell(Subscribe(topic))

    async def ask(self, message: Message, answer: type[Answer]) -> Answer:
        """Ask the controller, and its successor where it dies before it answers: all that it is asked may be repeated.

        Raises:
            Refused: It answered with an error.
            Disconnected: There is none, for longer than a restart takes, or the line was closed.
        """
        while True:
            try:
                async with asyncio.timeout(MAX_WAIT_S):
                    await self._open.wait()
            except TimeoutError:
                raise Disconnected(f"the controller is gone, for more than {MAX_WAIT_S:g}s") from None
            try:
                return await self._peer.ask(message, answer)
            except Disconnected:
                if self._closed or not self._address:
                    raise

    def tell(self, message: Message) -> None:
        """Tell the controller."""
        self._peer.tell(message)

    def subscribe(self, topic: str, on_value: OnValue) -> None:
        """Call back with the topic's value now and at each change."""
        callbacks = self._subscribers.setdefault(topic, [])
        callbacks.append(on_value)
        if len(callbacks) == 1:
            self._peer.tell(Subscribe(topic))
        elif (last := self._last.get(topic)) is not None:
            on_value(last.value)

    def unsubscribe(self, topic: str, on_value: OnValue) -> None:
        """Stop calling back."""
        callbacks = self._subscribers.get(topic, [])
        if on_value in callbacks:
            callbacks.remove(on_value)
        if not callbacks and self._subscribers.pop(topic, None) is not None:
            self._last.pop(topic, None)
            self._peer.tell(Unsubscribe(topic))

    def close(self) -> None:
        """Close the line."""
        self._closed = True
        # Nobody waits for it to open again.
        self._open.set()
        self._peer.close()

    # Office

    async def on_ask(self, peer: Peer, message: Message) -> Message:
        """Answer the controller; part of Office."""
        if self._answer is None:
            raise ProtocolError(f"this process does not answer {type(message).__name__}")
        return await self._answer(message)

    def on_tell(self, peer: Peer, message: Message) -> None:
        """Take a snapshot; part of Office."""
        if not isinstance(message, Snapshot):
            raise ProtocolError(f"this process does not listen to {type(message).__name__}")
        callbacks = self._subscribers.get(message.topic)
        last = self._last.get(message.topic)
        if callbacks is None or (last is not None and last.version >= message.version):
            return
        self._last[message.topic] = message
        for callback in list(callbacks):
            callback(message.value)

    def on_gone(self, peer: Peer) -> None:
        """The controller is gone; what is known stays true until it is back; part of Office."""
        if not self._closed:
            self._open.clear()
            self._tasks.start(self._redial(), name="reach the controller again")

    async def _redial(self) -> None:
        attempt = 0
        while not self._closed:
            try:
                await self.connect(self._address)
            except Disconnected:
                await self._clock.sleep_until(self._clock.now() + redial_delay_s(attempt, random()))
                attempt += 1
            else:
                if self._back is not None:
                    self._back()
                return
