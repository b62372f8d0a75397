"""Thousands of clients that break off at random moments leave nothing: no descriptor, handler or memory."""

import contextlib
import random
from statistics import median

from tests.conformance.cases import CHUNKED, TABLE, request
from tests.conformance.target import Target

ROUND = 1500
ROUNDS = 6
ALLOWED_GROWTH_BYTES = 4 << 20
"""Of half the rounds; a leak of a kibibyte for each client would be more."""

STREAMS = [
    request(start=b"GET /wait HTTP/1.1"),
    request(start=b"GET /big?mib=4 HTTP/1.1"),
    request(start=b"GET /x HTTP/1.1") * 20,
    request(b"Content-Length: 300000", body=b"x" * 300_000),
    request(CHUNKED, body=b"8000\r\n" + b"x" * 0x8000 + b"\r\n"),
]


def break_off_many(target: Target, chance: random.Random) -> None:
    """Connect, send the beginning of something, read a little or nothing, leave."""
    table = [case.data for case in TABLE.values() if len(case.data) < 2000]
    for _ in range(ROUND):
        data = chance.choice(STREAMS) if chance.random() < 0.5 else chance.choice(table)
        with target.peer() as peer:
            peer.send(data[: chance.randint(0, len(data))])
            if chance.random() < 0.2:
                peer.socket.settimeout(0.001)
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    peer.socket.recv(100)
            if chance.random() < 0.5:
                peer.reset()


def test_clients_that_break_off_leave_nothing(target: Target) -> None:
    chance = random.Random(1)
    descriptors = target.descriptors()
    break_off_many(target, chance)  # Caches fill.
    target.wait_until_quiet(descriptors)
    memory = []
    for _ in range(ROUNDS):
        break_off_many(target, chance)
        target.wait_until_quiet(descriptors)
        memory.append(target.memory_bytes())
    # Medians, because one round may find caches not yet full, or leave something for a moment.
    assert median(memory[ROUNDS // 2 :]) - median(memory[: ROUNDS // 2]) < ALLOWED_GROWTH_BYTES, memory
    target.check_unharmed()
