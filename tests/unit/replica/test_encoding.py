"""What handlers return, as HTTP bodies."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.replica.encoding import encode_body, encode_json

JSON = b"application/json"


class Color(enum.Enum):
    """An enum of text."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    HIGH = 2


class Size(enum.StrEnum):
    """An enum that is text."""

    BIG = "big"


class User(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    born: datetime.date = datetime.date(2000, 1, 2)


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    labels: dict[Any, Any] = dataclasses.field(default_factory=dict)


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        pytest.param(None, b"text/plain", b"", id="None"),
        pytest.param("hé", b"text/plain; charset=utf-8", "hé".encode(), id="text"),
        pytest.param("", b"text/plain; charset=utf-8", b"", id="empty text"),
        pytest.param(b"\xff\x00", b"text/plain", b"\xff\x00", id="bytes"),
        pytest.param(bytearray(b"\xff"), b"text/plain", b"\xff", id="bytearray"),
        pytest.param(memoryview(b"\xff"), b"text/plain", b"\xff", id="memoryview"),
    ],
)
def test_text_and_bytes_are_sent_as_they_are(value: object, content_type: bytes, body: bytes) -> None:
    assert encode_body(value) == (content_type, body)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        pytest.param({"a": [1, 2.5, True, None]}, '{"a":[1,2.5,true,null]}', id="compact"),
        pytest.param({"é": "ü"}, '{"é":"ü"}', id="not escaped"),
        pytest.param((1, 2), "[1,2]", id="tuple"),
        pytest.param(Pair(1, 2), "[1,2]", id="namedtuple"),
        pytest.param({3}, "[3]", id="set"),
        pytest.param(frozenset({3}), "[3]", id="frozenset"),
        pytest.param(deque([1]), "[1]", id="deque"),
        pytest.param(0, "0", id="zero"),
        pytest.param(False, "false", id="false"),
        pytest.param(math.nan, "NaN", id="NaN"),
        pytest.param([math.inf], "[Infinity]", id="Infinity"),
        pytest.param({1: "a", None: "b", 1.5: "c"}, '{"1":"a","null":"b","1.5":"c"}', id="keys"),
        pytest.param(OrderedDict(b=1, a=2), '{"b":1,"a":2}', id="order kept"),
        pytest.param(defaultdict(list, a=[1]), '{"a":[1]}', id="defaultdict"),
        pytest.param(MappingProxyType({"a": 1}), '{"a":1}', id="mapping"),
        pytest.param(Point(1), '{"x":1,"labels":{}}', id="dataclass"),
        pytest.param([Point(1, {"y": {2}})], '[{"x":1,"labels":{"y":[2]}}]', id="nested dataclass"),
        pytest.param(User(name="Ann"), '{"name":"Ann","born":"2000-01-02"}', id="pydantic"),
        pytest.param([User(name="Ann")], '[{"name":"Ann","born":"2000-01-02"}]', id="nested pydantic"),
        pytest.param(pydantic.RootModel[list[int]]([1]), "[1]", id="pydantic root model"),
        pytest.param(datetime.datetime(2024, 1, 2, 3, 4, 5), '"2024-01-02T03:04:05"', id="datetime"),
        pytest.param(datetime.date(2024, 1, 2), '"2024-01-02"', id="date"),
        pytest.param(datetime.time(3, 4), '"03:04:00"', id="time"),
        pytest.param(datetime.timedelta(minutes=1), "60.0", id="timedelta"),
        pytest.param(Color.RED, '"red"', id="enum"),
        pytest.param(Level.HIGH, "2", id="int enum"),
        pytest.param([Size.BIG], '["big"]', id="text enum"),
        pytest.param({Color.RED: 1}, '{"red":1}', id="enum key"),
        pytest.param({"a": {Color.RED: {Color.RED}}}, '{"a":{"red":["red"]}}', id="nested enum key"),
        pytest.param(Point(1, {Color.RED: 1}), '{"x":1,"labels":{"red":1}}', id="enum key in a dataclass"),
        pytest.param({Size.BIG: 1, Level.HIGH: 2}, '{"big":1,"2":2}', id="keys of other enums"),
        pytest.param({uuid.UUID(int=1): 1}, '{"00000000-0000-0000-0000-000000000001":1}', id="uuid key"),
        pytest.param({datetime.date(2024, 1, 2): 1}, '{"2024-01-02":1}', id="date key"),
        pytest.param({np.int64(3): np.int64(4)}, '{"3":4}', id="numpy key"),
        pytest.param(uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"', id="uuid"),
        pytest.param(pathlib.PurePosixPath("/a"), '"/a"', id="path"),
        pytest.param(decimal.Decimal("2"), "2", id="whole decimal"),
        pytest.param(decimal.Decimal("1.50"), "1.5", id="decimal"),
        pytest.param(decimal.Decimal("Infinity"), "Infinity", id="infinite decimal"),
        pytest.param({"raw": b"abc"}, '{"raw":"abc"}', id="bytes inside"),
        pytest.param([bytearray(b"a"), memoryview(b"b")], '["a","b"]', id="other bytes inside"),
        pytest.param(ValueError("no"), '"no"', id="exception"),
        pytest.param({"error": KeyError("k")}, '{"error":"\'k\'"}', id="exception inside"),
        pytest.param({True: 1, False: 0}, '{"true":1,"false":0}', id="bool keys"),
        pytest.param({b"k": 1}, '{"k":1}', id="bytes key"),
        pytest.param(
            {"a": [Point(1, {"b": {Color.RED: np.array([User(name="Ann")])}})]},
            '{"a":[{"x":1,"labels":{"b":{"red":[{"name":"Ann","born":"2000-01-02"}]}}}]}',
            id="all of it",
        ),
        pytest.param(np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]", id="numpy array"),
        pytest.param(np.array(1.5), "1.5", id="numpy scalar array"),
        pytest.param({"p": np.float32(0.5)}, '{"p":0.5}', id="numpy float"),
        pytest.param([np.int64(3), np.bool_(True)], "[3,true]", id="numpy scalars"),
        pytest.param(np.array([math.nan]), "[NaN]", id="numpy NaN"),
        pytest.param(np.array(["2024-01-02"], dtype="M8[D]"), '["2024-01-02"]', id="numpy dates"),
        pytest.param(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), '[{"a":1,"b":"x"},{"a":2,"b":"y"}]', id="DataFrame"),
        pytest.param(pd.DataFrame({"a": [1.5, math.nan]}), '[{"a":1.5},{"a":NaN}]', id="DataFrame with NaN"),
        pytest.param({"table": pd.DataFrame({"a": [1]})}, '{"table":[{"a":1}]}', id="DataFrame inside"),
        pytest.param(pd.DataFrame(), "[]", id="empty DataFrame"),
        pytest.param(pd.Series([1, 2]), "[1,2]", id="Series"),
        pytest.param(pd.Index(["a"]), '["a"]', id="Index"),
        pytest.param({"at": pd.Timestamp("2024-01-02")}, '{"at":"2024-01-02T00:00:00"}', id="Timestamp"),
    ],
)
def test_everything_else_is_json(value: object, body: str) -> None:
    assert encode_body(value) == (JSON, body.encode())


@pytest.mark.parametrize(
    "value",
    [object(), [object()], (each for each in [1]), {"a": {object()}}, User, lambda: None, {(1, 2): 3}],
    ids=["object", "in a list", "generator", "deep", "model class", "function", "tuple key"],
)
def test_what_is_no_json_is_a_type_error_that_names_the_type(value: object) -> None:
    with pytest.raises(TypeError, match="which cannot be turned into JSON; return text, bytes, a starlette Response"):
        encode_body(value)


@pytest.mark.parametrize(
    "value", ["\ud800", ["\ud800"], {"raw": b"\xff"}], ids=["lone surrogate", "in a list", "bytes that are no text"]
)
def test_what_has_no_bytes_as_utf8_is_an_error(value: object) -> None:
    with pytest.raises(UnicodeError):
        encode_body(value)


def test_a_value_that_contains_itself_is_an_error() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        encode_body(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(codec="utf-8")), children),
    max_leaves=20,
)


@settings(max_examples=50)
@given(json_values)
def test_plain_data_comes_back_equal(value: object) -> None:
    assert json.loads(encode_json(value)) == value
