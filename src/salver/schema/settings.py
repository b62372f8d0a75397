"""The one reader of the environment: SALVER_* variables."""

import os
from pathlib import Path
from typing import NamedTuple

from salver.schema.errors import InvalidOption

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Settings(NamedTuple):
    """What the environment says.

    Attributes:
        runtime_dir: Directory that holds one directory per running instance (SALVER_RUNTIME_DIR).
        log_level: Level of Salver's own log lines (SALVER_LOG_LEVEL).
        default_http_host: Where proxies listen unless told otherwise (SALVER_HTTP_HOST).
        local_testing_mode: Run applications inside the calling process, as if each `serve.run` and `serve.start`
            asked for it (SALVER_LOCAL_TESTING_MODE: 1 or 0).
    """

    runtime_dir: Path
    log_level: str
    default_http_host: str
    local_testing_mode: bool


def read_settings() -> Settings:
    """Return the settings as the environment has them now.

    Raises:
        InvalidOption: A variable has a value that is not allowed.
    """
    runtime = os.environ.get("SALVER_RUNTIME_DIR") or os.path.join(_user_runtime_dir(), f"salver-{os.getuid()}")
    return Settings(
        runtime_dir=Path(runtime),
        log_level=_log_level(),
        default_http_host=os.environ.get("SALVER_HTTP_HOST", "127.0.0.1"),
        local_testing_mode=_switch("SALVER_LOCAL_TESTING_MODE"),
    )


def _log_level() -> str:
    level = (os.environ.get("SALVER_LOG_LEVEL") or "INFO").upper()
    if level not in LOG_LEVELS:
        raise InvalidOption(f"SALVER_LOG_LEVEL is {level!r}: expected one of {', '.join(LOG_LEVELS)}.")
    return level


def _switch(name: str) -> bool:
    value = os.environ.get(name) or "0"
    if value not in ("0", "1"):
        raise InvalidOption(f"{name} is {value!r}: expected 1 or 0.")
    return value == "1"


def _user_runtime_dir() -> str:
    if runtime_dir := os.environ.get("XDG_RUNTIME_DIR"):
        return runtime_dir
    import tempfile  # noqa: PLC0415 - takes longer to import than the rest of this room's settings

    return tempfile.gettempdir()


def inherited_environment() -> dict[str, str]:
    """Return a copy of this process's environment, to start others with."""
    return dict(os.environ)


def replace_environment(changes: dict[str, str]) -> None:
    """Set variables of this process; only for a process that was just started for others' code."""
    os.environ.update(changes)
