"""The agent's process: `python -P -c "from salver.processes.agent import main; main()" FD`.

The order matters. The base zygote is forked first, while this process has one thread and no event loop. What all
processes need is imported before that, and shared. What only the agent needs comes after it, while the zygote imports
what the others need.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import salver.transport.peer
import salver.transport.sockets  # noqa: F401 - shared by all that is forked
from salver.engine import instances
from salver.engine.zygote import FORKING_IS_SAFE_HERE, Home, serve
from salver.lib.processes import become_subreaper, open_files_limit, set_title
from salver.schema.errors import SalverError
from salver.schema.messages import AgentOptions
from salver.schema.settings import replace_environment
from salver.transport.first_word import receive_first_word

if TYPE_CHECKING:
    from salver.processes.agent_loop import AgentProcess

CONTROLLER_ENTRY = "salver.processes.controller:main"
# Imported by the base zygote while it has nothing else to do, in the order in which they are needed.
WARM = (
    "uvloop",
    "salver.processes.controller",
    "httptools",
    "salver.processes.proxy",
    "salver.engine.user_import",
    "cloudpickle",
    "salver.processes.builder",
    "starlette.requests",
    "starlette.responses",
    "salver.processes.replica",
)


def main(*, controller_entry: str | None = CONTROLLER_ENTRY) -> None:
    """Run the agent in a fresh interpreter; argv holds the descriptor of the line that brings the options."""
    driver_line = socket.socket(fileno=int(sys.argv[1]))
    try:
        options = msgspec.msgpack.decode(receive_first_word(driver_line), type=AgentOptions)
    except (EOFError, ConnectionError):
        sys.exit("The driver ended before it said what to run.")
    run(driver_line, options, controller_entry=controller_entry)


def run(driver_line: socket.socket, options: AgentOptions, *, controller_entry: str | None = CONTROLLER_ENTRY) -> None:
    """Run the agent to its end, in a process that has one thread and no event loop and will do nothing else.

    Args:
        controller_entry: What to start as the controller; None starts none, and the agent is ready once it listens.
    """
    options = msgspec.structs.replace(options, instance_dir=os.path.abspath(options.instance_dir))
    _settle(driver_line)
    try:
        Path(options.instance_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = instances.hold(Path(options.instance_dir))
    except (OSError, SalverError) as error:
        asyncio.run(_agent_process(options, driver_line).fail(str(error)))
        return
    replace_environment({instances.MARK: options.instance_dir})
    base = _fork_base_zygote(driver_line, options.instance_dir) if FORKING_IS_SAFE_HERE else None
    process = _agent_process(options, driver_line)
    asyncio.run(process.run(base, lock_fd, WARM, controller_entry))


def _agent_process(options: AgentOptions, driver_line: socket.socket) -> "AgentProcess":
    from salver.processes.agent_loop import AgentProcess

    return AgentProcess(options, driver_line)


def _settle(driver_line: socket.socket) -> None:
    """Become what an agent must be, whoever started it and how."""
    set_title("salver agent")
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver_line.set_inheritable(False)
    if os.getsid(0) != os.getpid():
        os.setsid()
    become_subreaper()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    open_files_limit()


def _fork_base_zygote(driver_line: socket.socket, instance_dir: str) -> tuple[int, socket.socket]:
    """Return the zygote's pid and our line to it, in the agent only; what is forked from it runs to its end here."""
    agent_pid = os.getpid()
    ours, theirs = socket.socketpair()
    # What is imported now is shared for good; a garbage collector that looks at it would copy it.
    gc.freeze()
    pid = os.fork()
    if pid != 0:
        theirs.close()
        return pid, ours
    ours.close()
    driver_line.close()
    serve(theirs, Home(agent_pid, instance_dir, janitor=True), WARM).run()
    sys.exit()
