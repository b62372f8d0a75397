"""The ASGI lifespan protocol, as the replica speaks it."""

from typing import Any

import pytest

from salver.lib.tasks import Tasks
from salver.replica.lifespan import Lifespan
from salver.schema.errors import SalverError


def _fail(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name} failed") from error


async def test_startup_and_shutdown_are_run_once_each_and_state_is_kept() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["key"] = "value"
        for expected in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{expected}"
            seen.append(expected)
            await send({"type": f"lifespan.{expected}.complete"})

    lifespan = Lifespan(app, Tasks(_fail))
    await lifespan.start()
    assert (lifespan.state, seen) == ({"key": "value"}, ["startup"])
    await lifespan.stop()
    assert seen == ["startup", "shutdown"]


@pytest.mark.parametrize("ends", ["raises", "returns"])
async def test_an_application_that_does_not_know_lifespans_is_left_alone(ends: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if ends == "raises":
            raise AssertionError("http only")

    lifespan = Lifespan(app, Tasks(_fail))
    await lifespan.start()
    await lifespan.stop()


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_failure_says_what_the_application_said(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            failed = kind.endswith(phase)
            await send({"type": f"{kind}.{'failed' if failed else 'complete'}", "message": "no database"})
            if kind.endswith("shutdown") or failed:
                return

    lifespan = Lifespan(app, Tasks(_fail))
    if phase == "shutdown":
        await lifespan.start()
    with pytest.raises(SalverError, match=f"lifespan {phase} failed: no database"):
        await (lifespan.start() if phase == "startup" else lifespan.stop())
