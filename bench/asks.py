"""What is asked of a server, and whether it answered that."""

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass

from bench.work import ANSWER, CHUNKS, NOOP, PAYLOAD, QUESTION

ANSWER_WITHIN_S = 30.0


class WrongAnswerError(Exception):
    """A server answered something else than what was asked for."""


@dataclass(frozen=True)
class Ask:
    """A request, and what a right answer is.

    Attributes:
        is_right: Tells whether a body is what the work demands.
        least_bytes: Size of a right body in bytes.
    """

    is_right: Callable[[bytes], bool]
    least_bytes: int = 0
    method: str = "GET"
    path: str = "/"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def check(ask: Ask, port: int) -> None:
    """Ask once.

    Raises:
        WrongAnswerError: The status is not 200 or the body is wrong.
        OSError: No connection.
        http.client.HTTPException: What came is no HTTP.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    try:
        connection.request(ask.method, ask.path, body=ask.body or None, headers=dict(ask.headers))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK or not ask.is_right(body):
        raise WrongAnswerError(f"{ask.method} {ask.path} was answered with {response.status} and {body[:200]!r}")


def _is_answer(body: bytes) -> bool:
    try:
        return bool(json.loads(body) == ANSWER)
    except ValueError:
        return False


JSON = (("Content-Type", "application/json"),)
ANYTHING = Ask(lambda body: True)
NOTHING_MUCH = Ask(lambda body: body == NOOP, len(NOOP))
POSTED = Ask(lambda body: body == NOOP, len(NOOP), "POST", "/", b"{}", JSON)
PRICE = Ask(_is_answer, 40, "POST", "/predict", json.dumps(QUESTION).encode(), JSON)
THROUGH_CHAIN = Ask(lambda body: body == PAYLOAD, len(PAYLOAD), "POST", "/", PAYLOAD)
EVENTS = Ask(lambda body: body == b"".join(CHUNKS), len(b"".join(CHUNKS)))
POSTED_EVENTS = Ask(EVENTS.is_right, EVENTS.least_bytes, "POST", "/", b"{}", JSON)
SOME_CALLS = Ask(lambda body: b"rate" in body)
