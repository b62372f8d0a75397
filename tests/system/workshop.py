"""A real agent and users' modules for it, which a test writes where it needs them."""

import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from salver.engine.base import Exit, ProcessSpec, Started
from salver.engine.local import LocalEngine
from salver.schema.application import Preload
from salver.schema.messages import Notice, Output
from tests.agents import Agent, running_agent
from tests.waiting import wait_until

WITHIN_S = 10.0


class Workshop:
    """An agent, its engine, and a directory of users' modules."""

    def __init__(self, agent: Agent, engine: LocalEngine, code_dir: Path) -> None:
        self.agent = agent
        self.engine = engine
        self.exits: list[Exit] = []
        self._code_dir = code_dir
        engine.on_exit(self.exits.append)

    def write(self, module: str, source: str, **env: str) -> Preload:
        """Write a user's module; return what a process needs to have it in memory."""
        code = "import os, signal, sys, time\n\ndef wait(*_):\n    while True: signal.pause()\n\n"
        (self._code_dir / f"{module}.py").write_text(code + textwrap.dedent(source))
        return Preload(str(self._code_dir), search_path=(str(self._code_dir),), modules=(module,), env=env)

    async def start(self, preload: Preload, function: str = "wait", name: str = "one", **rest: Any) -> Started:
        """Start a process that calls a function of the preload's last module."""
        entry = f"{preload.modules[-1]}:{function}"
        return await self.engine.start(ProcessSpec(name=name, entry=entry, preload=preload, **rest))

    async def exit_of(self, name: str = "one") -> Exit:
        """Wait until a process has ended."""
        ended = await wait_until(
            lambda: [each for each in self.exits if each.name == name], within_s=WITHIN_S, what=f"the end of {name}"
        )
        return ended[0]

    async def output_of(self, preload: Preload, function: str, name: str = "one", **rest: Any) -> list[str]:
        """Run a process to its end and return its last lines."""
        await self.start(preload, function, name, **rest)
        return (await self.exit_of(name)).last_output.split("\n")

    def said(self, source: str) -> list[str]:
        """Return the lines that a process has written so far."""
        told = [each for each in self.agent.heard if isinstance(each, Output) and each.source == source]
        return [line for each in told for line in each.lines]

    @property
    def notices(self) -> list[str]:
        """Return what the agent said to the person at the terminal."""
        return [each.text for each in self.agent.heard if isinstance(each, Notice)]

    def zygotes(self) -> list[psutil.Process]:
        """Return the zygotes, the base first."""
        children = psutil.Process(self.agent.process.pid).children()
        named = [each for each in children if _title_of(each).startswith(("salver zygote", "import "))]
        return sorted(named, key=lambda each: not _title_of(each).startswith("salver"))


@asynccontextmanager
async def workshop(runtime_dir: Path, code_dir: Path, **options: Any) -> AsyncIterator[Workshop]:
    """Yield a workshop; nothing of it is left afterwards."""
    async with running_agent(runtime_dir, **options) as agent:
        engine = await agent.engine()
        yield Workshop(agent, engine, code_dir)
        await engine.close()


def _title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
