"""What a handler returned, as an HTTP body: text, bytes, or JSON of whatever people return from models."""

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

TEXT_TYPE = b"text/plain"
UTF8_TEXT_TYPE = b"text/plain; charset=utf-8"
JSON_TYPE = b"application/json"


def encode_body(value: Any) -> tuple[bytes, bytes]:
    """Return the content type and the body for a handler's result.

    Raises:
        TypeError: The value, or something in it, cannot be turned into JSON.
    """
    if isinstance(value, str):
        return UTF8_TEXT_TYPE, value.encode()
    if value is None:
        return TEXT_TYPE, b""
    if isinstance(value, bytes | bytearray | memoryview):
        return TEXT_TYPE, bytes(value)
    return JSON_TYPE, encode_json(value)


def encode_json(value: Any) -> bytes:
    """Return compact JSON; numpy, pandas, pydantic, dataclasses, dates, enums and sets are understood."""
    try:
        text = _dumps(value)
    except TypeError:
        # Keys of a kind that JSON has no room for, somewhere. To convert everything first costs time that few need.
        text = _dumps(_plain(value))
    return text.encode()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_simpler)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | None) else _plain(_simpler(value))


def _key(key: Any) -> Any:
    simple = key if isinstance(key, str | int | float | bool | None) else _simpler(key)
    return simple if isinstance(simple, str | int | float | bool | None) else str(simple)


def _simpler(value: Any) -> Any:
    """Return something nearer to JSON for one value, or raise TypeError."""
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method, arguments in _DUCKS:
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            return getattr(value, method)(**arguments)
    raise TypeError(
        f"A handler returned a value with a {type(value).__name__} in it, which cannot be turned into JSON; "
        "return text, bytes, a starlette Response, or plain data."
    )


def _number(value: decimal.Decimal) -> int | float:
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


_CONVERSIONS: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda value: value.value),
    ((datetime.datetime, datetime.date, datetime.time), lambda value: value.isoformat()),
    (datetime.timedelta, lambda value: value.total_seconds()),
    ((set, frozenset, deque), list),
    (Mapping, dict),
    ((bytes, bytearray, memoryview), lambda value: bytes(value).decode()),
    ((uuid.UUID, pathlib.PurePath), str),
    (decimal.Decimal, _number),
    (BaseException, str),
)

# Libraries that need not be installed, by what their values can do. The first that fits wins: a DataFrame has
# to_dict and no tolist; a numpy array and a torch tensor have tolist; a Series has tolist too.
_DUCKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("model_dump", {"mode": "json"}),
    ("tolist", {}),
    ("to_dict", {"orient": "records"}),
)
