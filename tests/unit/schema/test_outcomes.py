"""Errors as HTTP answers."""

import pytest

from salver.schema.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaDiedError,
    RequestCancelledError,
    RequestTimeoutError,
    as_remote_error,
)
from salver.schema.ids import DeploymentID
from salver.schema.outcomes import INTERNAL_ERROR, TEXT, not_found, outcome_of

FULL = BackPressureError(1, 1)
UNAVAILABLE = DeploymentUnavailableError(DeploymentID("model", "shop"))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FULL, 503),
        (BackPressureError(1, 1, 429), 429),
        (UNAVAILABLE, 503),
        (ReplicaDiedError("shop#model#1", "abc"), 502),
        (RequestTimeoutError("abc"), 408),
        (RequestCancelledError("abc"), 499),
    ],
    ids=["queue full", "queue full, other status", "unavailable", "replica died", "timed out", "cancelled"],
)
@pytest.mark.parametrize("remote", [False, True], ids=["raised here", "raised by a call"])
def test_an_error_of_ours_has_a_status_and_says_why(error: Exception, status: int, remote: bool) -> None:
    outcome = outcome_of(as_remote_error(error, "secret traceback") if remote else error)
    assert outcome.status == status
    assert outcome.body == str(error).encode()
    assert TEXT in outcome.headers


def test_retry_after_is_rounded_up() -> None:
    assert (b"retry-after", b"2") in outcome_of(BackPressureError(1, 1, 503, 1.2)).headers


def test_without_retry_after_there_is_no_such_header() -> None:
    assert outcome_of(FULL).headers == (TEXT,)


def test_what_is_not_in_the_table_tells_nothing() -> None:
    assert outcome_of(ValueError("secret")) is INTERNAL_ERROR
    assert INTERNAL_ERROR.body == b"Internal Server Error"


def test_a_path_without_a_route_is_named() -> None:
    assert not_found("/zzz").body == b"Path '/zzz' not found. Ping http://.../-/routes for available routes."


def test_text_that_has_no_bytes_is_escaped() -> None:
    assert rb"\udcff" in not_found("/\udcff").body
