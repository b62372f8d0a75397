"""What the engines' contract runs: each program once for real processes, and once for the fake engine's."""

import os
import signal
import sys

from salver.engine.base import ProcessContext
from salver.engine.fake import FakeProcess, Program

MODULE = __name__
LINES = 50


def entry(name: str) -> str:
    return f"{MODULE}:{name}"


def report(payload: bytes, context: ProcessContext) -> None:
    """Say what the process was given, the variables named in its payload too."""
    port = context.listeners["http"].getsockname()[1] if context.listeners else None
    variables = [f"{name}={os.environ.get(name)}" for name in payload.decode().split()]
    print("\n".join([context.name, f"listener {port}", *variables]))


async def fake_report(process: FakeProcess) -> None:
    listeners = process.context.listeners
    port = listeners["http"].getsockname()[1] if listeners else None
    variables = [f"{name}={process.env.get(name)}" for name in process.spec.payload.decode().split()]
    process.say(process.context.name, f"listener {port}", *variables)


def leave(payload: bytes, context: ProcessContext) -> None:
    sys.exit(int(payload))


async def fake_leave(process: FakeProcess) -> int:
    return int(process.spec.payload)


def crash(payload: bytes, context: ProcessContext) -> None:
    raise ValueError("on purpose")


async def fake_crash(process: FakeProcess) -> None:
    raise ValueError("on purpose")


def talk(payload: bytes, context: ProcessContext) -> None:
    for number in range(LINES):
        print(f"line {number}")


async def fake_talk(process: FakeProcess) -> None:
    process.say(*(f"line {number}" for number in range(LINES)))


def daemonize(payload: bytes, context: ProcessContext) -> None:
    """Leave a process of one's own behind, in a session of its own."""
    if (pid := os.fork()) == 0:
        os.setsid()
        wait(payload, context)
    print(pid)


def flood(payload: bytes, context: ProcessContext) -> None:
    for _ in range(100_000):
        print("x" * 50)


def write_oddly(payload: bytes, context: ProcessContext) -> None:
    os.write(1, b"carriage return\r\n\xff no text\n" + b"x" * 100_000 + b"\nno newline")


def wait(payload: bytes, context: ProcessContext) -> None:
    """Live until a signal comes."""
    while True:
        signal.pause()


def stop_politely(payload: bytes, context: ProcessContext) -> None:
    """Exit with 7 when asked to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print("handles it")
    wait(payload, context)


async def fake_stop_politely(process: FakeProcess) -> int:
    process.say("handles it")
    await process.wait_for_stop()
    return 7


FAKES: dict[str, Program] = {
    entry("report"): fake_report,
    entry("leave"): fake_leave,
    entry("crash"): fake_crash,
    entry("talk"): fake_talk,
    entry("stop_politely"): fake_stop_politely,
}
