"""Deployments that make up random graphs, and what each request must be answered."""

import asyncio
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import salver as serve
from tests.waiting import wait_until

Pattern = Literal["in_turn", "together", "chained"]


class Failed(Exception):
    """Raised at a node on order."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self.node = node


@dataclass(frozen=True)
class Ask:
    """A request.

    Attributes:
        fail_before: Nodes that raise before they call others.
        fail_after: Nodes that raise when the others have answered.
        slow: Nodes that take some time.
    """

    number: int
    fail_before: frozenset[int] = frozenset()
    fail_after: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Shape:
    """A node of a graph.

    Attributes:
        children: Nodes that it calls, with greater numbers.
        is_async: Its handler is `async def`.
    """

    children: tuple[int, ...]
    pattern: Pattern
    is_async: bool
    num_replicas: int
    max_ongoing_requests: int
    max_queued_requests: int


class Answer(NamedTuple):
    """What a node returns."""

    node: int
    number: int
    before: Any
    answers: tuple[Any, ...]


class Meeting(NamedTuple):
    """Calls that are to run at the same time."""

    name: str
    size: int


SLOW_S = 0.02
# All replicas see these, for they are threads of one process.
LIVING: list[Any] = []
MEETINGS: dict[str, list[Any]] = defaultdict(list)
"""Who is there."""


class Here:
    """How many handlers of a replica run, counted from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self.inside -= 1


@serve.deployment(graceful_shutdown_timeout_s=5)
class Node:
    def __init__(self, node: int, shape: Shape, children: list[tuple[Any, str]]) -> None:
        self.node, self.pattern = node, shape.pattern
        self.children = [handle.options(method_name=method) for handle, method in children]
        self.here = Here()
        LIVING.append(self)

    async def ask_async(self, ask: Ask, before: Any = None) -> Answer:
        with self.here:
            if self.node in ask.fail_before:
                raise Failed(self.node)
            if self.node in ask.slow:
                await asyncio.sleep(SLOW_S)
            if self.pattern == "in_turn":
                answers = [await child.remote(ask) for child in self.children]
            elif self.pattern == "together":
                answers = await asyncio.gather(*[child.remote(ask) for child in self.children])
            else:
                answers = [await last] if (last := self._chain(ask)) is not None else []
            return self._answer(ask, before, answers)

    def ask_sync(self, ask: Ask, before: Any = None) -> Answer:
        with self.here:
            if self.node in ask.fail_before:
                raise Failed(self.node)
            if self.node in ask.slow:
                time.sleep(SLOW_S)
            if self.pattern == "in_turn":
                answers = [child.remote(ask).result() for child in self.children]
            elif self.pattern == "together":
                answers = [response.result() for response in [child.remote(ask) for child in self.children]]
            else:
                answers = [last.result()] if (last := self._chain(ask)) is not None else []
            return self._answer(ask, before, answers)

    def _chain(self, ask: Ask) -> Any:
        response = None
        for child in self.children:
            response = child.remote(ask, response)
        return response

    def _answer(self, ask: Ask, before: Any, answers: list[Any]) -> Answer:
        if self.node in ask.fail_after:
            raise Failed(self.node)
        return Answer(self.node, ask.number, before, tuple(answers))

    async def meet(self, meeting: "Meeting") -> None:
        """Return when as many are there at once as are expected, in all replicas together."""
        MEETINGS[meeting.name].append(self)
        await wait_until(lambda: len(MEETINGS[meeting.name]) >= meeting.size, within_s=20, what=f"{meeting.size} calls")


def application(shapes: list[Shape]) -> Any:
    """Return the graph, of which the first node is the ingress."""
    bound: dict[int, Any] = {}
    for node in reversed(range(len(shapes))):
        shape = shapes[node]
        deployment = Node.options(
            name=f"node{node}",
            num_replicas=shape.num_replicas,
            max_ongoing_requests=shape.max_ongoing_requests,
            max_queued_requests=shape.max_queued_requests,
        )
        children = [(bound[child], method_of(shapes[child])) for child in shape.children]
        bound[node] = deployment.bind(node, shape, children)
    return bound[0]


def method_of(shape: Shape) -> str:
    """Return the method that a node of this shape is called by."""
    return "ask_async" if shape.is_async else "ask_sync"


def reachable(shapes: list[Shape]) -> list[int]:
    """Return the nodes that are part of the application."""
    found, waiting = set(), [0]
    while waiting:
        node = waiting.pop()
        found.add(node)
        waiting += shapes[node].children
    return sorted(found)


def expected(shapes: list[Shape], ask: Ask, node: int = 0, before: Any = None) -> Answer | frozenset[int]:
    """Return the right answer, or the nodes whose failure may be the answer."""
    if node in ask.fail_before:
        return frozenset({node})
    shape = shapes[node]
    answers: list[Any] = []
    failures: list[frozenset[int]] = []
    previous: Any = None
    for child in shape.children:
        answer = expected(shapes, ask, child, previous)
        if isinstance(answer, Answer):
            answers.append(answer)
            previous = answer if shape.pattern == "chained" else None
        else:
            failures.append(answer)
            if shape.pattern != "together" or not shape.is_async:
                # The others are not asked, or not listened to.
                break
    if failures:
        return frozenset().union(*failures)
    if node in ask.fail_after:
        return frozenset({node})
    if shape.pattern == "chained":
        answers = answers[-1:]
    return Answer(node, ask.number, before, tuple(answers))
