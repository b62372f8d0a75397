"""Which instance of this machine a client means."""

import re
from pathlib import Path

from salver.engine.instances import Found, find, living
from salver.schema.errors import SalverError

_REMOTE = re.compile(r"\w+://|[^/]+:\d+$|\[")


def instance_at(address: str | Path | int | None, runtime_dir: Path) -> Found:
    """Return the instance that an address means.

    Args:
        address: A directory or a socket of an instance, the id of its process, or None for the only one that runs.
        runtime_dir: Where this user's instances are.

    Raises:
        SalverError: There is none, or more than one to choose from, or it is on another machine.
    """
    if address is None:
        return _the_only_one(runtime_dir)
    if isinstance(address, int) or str(address).isdecimal():
        return _of_process(int(str(address)), runtime_dir)
    text = str(address)
    if _REMOTE.match(text):
        raise SalverError(
            f"'{text}' is the address of another machine, or of HTTP; a client connects to an instance of this machine "
            "only: by its directory, the id of its process, or nothing where one runs."
        )
    return _at_path(Path(text.removeprefix("unix:")), runtime_dir)


def _at_path(path: Path, runtime_dir: Path) -> Found:
    if path.suffix == ".sock":
        path = path.parent
    if not path.is_absolute() and len(path.parts) == 1 and (runtime_dir / path).is_dir():
        path = runtime_dir / path
    found = find(path.absolute())
    if found is None:
        raise SalverError(f"No instance runs at {path}. {_choice(_all(runtime_dir), runtime_dir)}")
    return found


def _of_process(pid: int, runtime_dir: Path) -> Found:
    all_ = _all(runtime_dir)
    for each in all_:
        if pid in (each.driver_pid, each.agent_pid):
            return each
    raise SalverError(f"Process {pid} has no instance. {_choice(all_, runtime_dir)}")


def _the_only_one(runtime_dir: Path) -> Found:
    all_ = _all(runtime_dir)
    if len(all_) == 1:
        return all_[0]
    if not all_:
        raise SalverError(_choice(all_, runtime_dir))
    raise SalverError(f"{len(all_)} instances run here. {_choice(all_, runtime_dir)}")


def _all(runtime_dir: Path) -> list[Found]:
    return [found for each in sorted(living(runtime_dir)) if (found := find(each)) is not None]


def _choice(all_: list[Found], runtime_dir: Path) -> str:
    if not all_:
        return (
            f"No instance runs in {runtime_dir}: start one with `salver run`, or set SALVER_RUNTIME_DIR to where it is."
        )
    lines = "".join(f"\n  {each}" for each in all_)
    return f"Pass the directory or the process of one of these to serve.connect():{lines}"
