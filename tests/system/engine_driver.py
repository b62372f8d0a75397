"""A driver to be killed: starts an agent and a family of processes, tells their pids, and waits.

`python -m tests.system.engine_driver RUNTIME_DIR CODE_DIR`
"""

import asyncio
import json
import sys
from pathlib import Path

import psutil

from salver.engine.base import ProcessSpec
from tests.contract.programs import entry
from tests.system.workshop import WITHIN_S, workshop
from tests.waiting import wait_until

PARENT = """
    import subprocess
    def parent(*_):
        in_our_group = subprocess.Popen(["sleep", "1000"])
        on_its_own = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print(in_our_group.pid, on_its_own.pid, flush=True)
        wait()

    def polite(*_):
        def finish(*_):
            open("finished", "w").close()
            sys.exit()
        signal.signal(signal.SIGTERM, finish)
        print("handles it", flush=True)
        wait()
"""


async def main(runtime_dir: Path, code_dir: Path) -> None:
    async with workshop(runtime_dir, code_dir) as shop:
        code = shop.write("family", PARENT)
        await shop.start(code, "parent", "parent", listeners=("http",))
        await shop.start(code, "polite", "sibling")
        await shop.engine.start(ProcessSpec(name="own", entry=entry("wait")))
        # The task is kept, or it might be collected.
        late = asyncio.create_task(shop.start(shop.write("hanging", "print('hangs', flush=True)\nwait()"), name="late"))
        for name in ("parent", "sibling", "import hanging"):
            await wait_until(lambda name=name: shop.said(name), within_s=WITHIN_S, what=name)
        children = [int(pid) for pid in shop.said("parent")[0].split()]
        agent = psutil.Process(shop.agent.process.pid)
        family = {
            "agent": [agent.pid],
            "base": [shop.zygotes()[0].pid],
            "users": children,
            "all": sorted({agent.pid, *(each.pid for each in agent.children(recursive=True)), *children}),
            "port": [shop.agent.first.http_port],
        }
        print(json.dumps(family), flush=True)
        await asyncio.gather(late, asyncio.Event().wait(), return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
