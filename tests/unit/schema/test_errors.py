"""Errors: what they say, and errors of other processes as instances of their own types."""

import pickle
from copy import copy

import pydantic
import pytest

from salver.schema.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    InvalidOption,
    RemoteError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SalverError,
    as_remote_error,
)
from salver.schema.ids import DeploymentID, ReplicaID

DEPLOYMENT = DeploymentID("model", "shop")


class ManyArguments(Exception):
    """Its constructor takes other arguments than its base's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Slotted(Exception):
    """Keeps its state where `__dict__` does not reach."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class FileGone(OSError):
    """Inherits from a built-in whose state is set in C."""


class Registered(ValueError):
    """Refuses to be inherited from."""

    def __init_subclass__(cls) -> None:
        raise RuntimeError("no heirs")


class OwnNames(Exception):
    """Has attributes of the names that RemoteError uses."""

    cause = "its own"

    def __init__(self) -> None:
        self.remote_traceback = "its own"


class Model(pydantic.BaseModel):
    """Something to validate."""

    number: int


def validation_error() -> pydantic.ValidationError:
    """Return an error whose type is final."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"number": "x"})
    return caught.value


CAUSES = [
    pytest.param(ValueError("no"), ValueError, id="built-in"),
    pytest.param(KeyError("missing"), KeyError, id="KeyError"),
    pytest.param(FileNotFoundError(2, "no", "a.txt"), OSError, id="OSError"),
    pytest.param(FileGone(2, "no", "a.txt"), FileGone, id="heir of OSError"),
    pytest.param(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeError, id="unicode"),
    pytest.param(ManyArguments(404, "not here"), ManyArguments, id="constructor of its own"),
    pytest.param(Slotted("full"), Slotted, id="slots"),
    pytest.param(ExceptionGroup("all", [ValueError(1)]), ExceptionGroup, id="group"),
    pytest.param(validation_error(), ValueError, id="final type"),
    pytest.param(Registered("no"), ValueError, id="type without heirs"),
    pytest.param(OwnNames(), OwnNames, id="names of its own"),
    pytest.param(BackPressureError(1, 2), BackPressureError, id="ours"),
    pytest.param(InvalidOption("no"), InvalidOption, id="ours with two bases"),
    pytest.param(Exception("plain"), Exception, id="Exception"),
]


@pytest.mark.parametrize(("cause", "kind"), CAUSES)
def test_a_remote_error_is_of_both_types(cause: Exception, kind: type[Exception]) -> None:
    error = as_remote_error(cause, "the replica's traceback")
    with pytest.raises(kind):
        raise error
    assert isinstance(error, RemoteError)
    assert str(error) == "the replica's traceback"
    assert error.cause is cause


@pytest.mark.parametrize(("cause", "kind"), CAUSES)
def test_a_remote_error_can_be_pickled(cause: Exception, kind: type[Exception]) -> None:
    error = as_remote_error(cause, "the replica's traceback")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, kind)
    assert isinstance(again, RemoteError)
    assert str(again) == "the replica's traceback"
    assert type(again.cause) is type(cause)
    assert type(copy(error)) is type(error)


def test_a_remote_error_has_the_attributes_of_its_cause() -> None:
    many = as_remote_error(ManyArguments(404, "not here"), "")
    slotted = as_remote_error(Slotted("full"), "")
    gone = as_remote_error(FileGone(2, "no", "a.txt"), "")
    assert isinstance(many, ManyArguments)
    assert isinstance(slotted, Slotted)
    assert isinstance(gone, FileGone)
    assert (many.code, many.args) == (404, ("404: not here",))
    assert slotted.reason == "full"
    assert (gone.errno, gone.filename) == (2, "a.txt")


def test_a_remote_error_stays_the_same_from_hop_to_hop() -> None:
    error = as_remote_error(ValueError("no"), "the first traceback")
    assert as_remote_error(error, "the second traceback") is error


@pytest.mark.parametrize(
    "cause", [None, SystemExit(1), StopIteration(2)], ids=["not picklable", "no Exception", "StopIteration"]
)
def test_what_cannot_be_raised_here_is_a_plain_remote_error(cause: BaseException | None) -> None:
    error = as_remote_error(cause, "the traceback")
    assert type(error) is RemoteError
    assert error.cause is cause
    assert str(error) == "the traceback"


@pytest.mark.parametrize(
    "error",
    [
        BackPressureError(1, 2, 429, 1.5),
        RequestCancelledError("abc"),
        DeploymentUnavailableError(DEPLOYMENT, "it was deleted"),
        ReplicaUnavailableError(ReplicaID("1234abcd", DEPLOYMENT)),
        ReplicaDiedError("shop#model#1", "abc"),
        ReplicaDiedError("shop#model#1", "abc", may_repeat=True),
        RequestTimeoutError("abc"),
        SalverError("plain"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_ours_are_the_same_after_pickling(error: SalverError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_errors_say_what_the_contract_says() -> None:
    assert str(BackPressureError(1, 2)) == (
        "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=2)."
    )
    assert str(RequestCancelledError("abc")) == "Request abc was cancelled."
    assert str(DeploymentUnavailableError(DEPLOYMENT)) == (
        "Deployment(name='model', app='shop') is unavailable because it failed to deploy."
    )
    assert "shop#model#1" in str(ReplicaDiedError("shop#model#1", "abc"))
