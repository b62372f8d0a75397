"""Bringing user code into a zygote, and finding out whether the zygote may still be forked afterwards.

What a fork would share or break is looked for in what the import left behind: threads, connections, devices, processes.
"""

import os
import stat
import sys
import threading
from pathlib import Path

from salver.engine.orders import Loaded, LoadFailed
from salver.lib import preloaded
from salver.lib.importing import ImportFailed, import_module
from salver.lib.loading import set_loading
from salver.lib.processes import child_pids, count_threads
from salver.lib.tracebacks import user_traceback
from salver.schema.application import Preload
from salver.schema.settings import replace_environment

_ACCELERATORS = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/accel", "/dev/davinci", "/dev/habanalabs")
EVENT_LOOP = "made an event loop"
# Lets torch.cuda.is_available() ask without a CUDA context, which no fork survives.
_HARMLESS_GPU_CHECK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def load_and_report(preload: Preload) -> Loaded | LoadFailed:
    """Bring a preload into this process; whatever the user's code raises becomes part of the report."""
    open_before = _open_fds()
    set_loading(", ".join(preload.modules) or "the application's code")
    try:
        _load(preload)
    except ImportFailed as error:
        return LoadFailed(_sendable(str(error)))
    except BaseException as error:  # noqa: BLE001 - the user's module may raise anything, SystemExit included
        return LoadFailed(_sendable(user_traceback(error)))
    finally:
        set_loading(None)
    return Loaded(_why_unforkable(open_before))


def _load(preload: Preload) -> None:
    replace_environment({**_HARMLESS_GPU_CHECK, **preload.env})
    # Python looks at it when it starts, which was long ago.
    sys.dont_write_bytecode = bool(preload.env.get("PYTHONDONTWRITEBYTECODE")) or sys.dont_write_bytecode
    try:
        os.chdir(preload.working_dir)
    except OSError as error:
        raise ImportFailed(f"Cannot enter the working directory {preload.working_dir}: {error.strerror}.") from None
    own = [entry for entry in sys.path if entry not in preload.search_path]
    sys.path[:] = [*preload.search_path, *own]
    for module in preload.modules:
        import_module(module)
    preloaded.load_all(preload.blobs)


def _sendable(text: str) -> str:
    """Return text without the lone surrogates that no encoding of a message can carry."""
    return text.encode(errors="backslashreplace").decode()


def _why_unforkable(open_before: set[int]) -> str | None:
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    if names:
        return f"importing it started threads ({', '.join(names)})"
    if count_threads() > 1 and (threads := _threads_that_stay()) > 1:
        return f"importing it started {threads - 1} native thread(s)"
    if child_pids():
        return "importing it started processes"
    whys = {why for fd in _open_fds() - open_before if (why := _why_unshareable(fd)) is not None}
    # An event loop has sockets too, and says more.
    return f"importing it {EVENT_LOOP if EVENT_LOOP in whys else min(whys)}" if whys else None


def _threads_that_stay() -> int:
    """Return how many threads outlast a fork: libraries like OpenBLAS end theirs just before, to begin anew."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return count_threads()


def _open_fds() -> set[int]:
    try:
        listed = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return set()
    # The listing lists its own descriptor, whose number is free again.
    return {fd for fd in listed if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _why_unshareable(fd: int) -> str | None:
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        return "opened a socket"
    target = str(Path(f"/proc/self/fd/{fd}").readlink())
    if target == "anon_inode:[eventpoll]":
        return EVENT_LOOP
    if target.startswith(_ACCELERATORS):
        return f"opened {target}"
    return None
