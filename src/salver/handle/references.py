"""Responses inside of arguments: pickled as numbers with the arguments of a call, responses again at its replica."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from salver.schema.errors import SalverError

if TYPE_CHECKING:
    from salver.handle.response import DeploymentResponse


class NotSerializable(SalverError):
    """A response was pickled where it is not an argument of a call."""


class _Here(threading.local):
    found: "list[DeploymentResponse[Any]] | None" = None
    given: "Sequence[DeploymentResponse[Any]]" = ()


_here = _Here()


@contextmanager
def finding(responses: "list[DeploymentResponse[Any]]") -> Iterator[None]:
    """Pickle responses by their place in this list, which grows by those that are not there yet."""
    before, _here.found = _here.found, responses
    try:
        yield
    finally:
        _here.found = before


@contextmanager
def giving(responses: "Sequence[DeploymentResponse[Any]]") -> Iterator[None]:
    """Unpickle responses as these."""
    before, _here.given = _here.given, responses
    try:
        yield
    finally:
        _here.given = before


def reduce_response(response: "DeploymentResponse[Any]") -> tuple[Any, ...]:
    """Return what a response is pickled as.

    Raises:
        NotSerializable: It is not pickled as part of a call's arguments.
    """
    found = _here.found
    if found is None:
        raise NotSerializable(
            "`DeploymentResponse` is not serializable. If you are passing it to another deployment's handle, "
            "please only pass `DeploymentResponse` objects as top level arguments."
        )
    for number, each in enumerate(found):
        if each is response:
            return response_of, (number,)
    found.append(response)
    return response_of, (len(found) - 1,)


def response_of(number: int) -> "DeploymentResponse[Any]":
    """Return the response that was pickled as this number."""
    return _here.given[number]
