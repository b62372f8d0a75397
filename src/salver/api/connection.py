"""`serve.connect`: a process without an instance of its own takes part in one that runs."""

from pathlib import Path
from types import TracebackType
from typing import Self

from salver.api.connecting import instance_at
from salver.api.driver import Driver, connect_driver, find_driver, stop_driver
from salver.engine.instances import Found
from salver.handle.session import find_session
from salver.schema.errors import SalverError
from salver.schema.settings import read_settings
from salver.telemetry.logs import set_up_logging


class Connection:
    """A connection to a running instance; ends with `close`, a `with` block, `serve.shutdown()` or the process.

    Attributes:
        address: The instance's directory.
        http_url: Where its proxy listens, or None without one.
    """

    def __init__(self, driver: Driver, found: Found) -> None:
        self._driver = driver
        self.address = str(found.path)
        self.http_url = found.http_url

    @property
    def is_open(self) -> bool:
        """Say whether the instance can be asked."""
        return self._driver.alive

    def close(self) -> None:
        """Leave the instance, which goes on."""
        if find_driver() is self._driver or not self._driver.alive:
            stop_driver(self._driver)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Connection(address='{self.address}', http_url={self.http_url!r})"


def connect(address: str | Path | int | None = None) -> Connection:
    """Connect this process to an instance of this machine that runs already, started by the same user.

    Afterwards handles, `serve.status()`, `serve.run()` and `serve.delete()` mean that instance. It is not ended with
    this process, and what this process runs there stays.

    Args:
        address: The instance's directory, a socket in it, or the id of the process that started it; None for the only
            instance that runs.

    Returns:
        The connection; a context manager that ends it.

    Raises:
        SalverError: There is no such instance or more than one to choose from, it is somebody else's, or this process
            has one already.
    """
    if find_driver() is not None or find_session() is not None:
        raise SalverError("This process is part of an instance already; serve.shutdown() comes before serve.connect().")
    settings = read_settings()
    found = instance_at(address, settings.runtime_dir)
    set_up_logging(settings.log_level)
    return Connection(connect_driver(found), found)
