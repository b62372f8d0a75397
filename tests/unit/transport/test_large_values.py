"""Values with large parts: taken apart without a copy, laid out in a block, and put together again."""

import pickle
import sys
import threading
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.transport.codec import LARGE_SIZE_BYTES, Pickled, encode, loads
from salver.transport.payloads import ALIGNMENT_BYTES, Arrival, Payload, end_of, starts_of
from salver.transport.segments import SegmentPool
from tests.unit.transport.large import pack_in

LARGE = LARGE_SIZE_BYTES


class NoPool(SegmentPool):
    """Has no shared memory to give."""

    def take(self, size_bytes: int) -> None:
        """Give nothing."""


def through(value: Any, pool: SegmentPool | None = None) -> Any:
    """Take a value apart and put it together again, as its way through a connection does."""
    pickled = encode(value)
    if isinstance(pickled, bytes):
        return loads(pickled)
    payload = Payload(pickled, pool or SegmentPool())
    block = memoryview(bytearray(b"".join(payload.parts())))
    assert block.nbytes == end_of(payload.sizes)
    return Arrival(block, payload.sizes).load()


sizes = st.sampled_from([0, 1, 63, 64, 4096, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7, 500_001])
leaves = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    sizes.map(lambda size: b"b" * size),
    sizes.map(lambda size: bytearray(b"a") * size),
    sizes.map(lambda size: "ü" * size),
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@settings(deadline=None, max_examples=60)
@given(values)
def test_a_value_of_any_parts_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    for pool in (SegmentPool(), NoPool()):
        again = through(value, pool)
        assert again == value
        assert type(again) is type(value)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["?", "<i2", ">f4", "f8", "c16", "S3", "M8[s]", [("a", "i4"), ("b", "f8")]]),
    st.sampled_from([(), (0,), (5,), (40_000,), (300, 301), (2, 0, 3), (60, 60, 60)]),
    st.sampled_from(["C", "F"]),
    st.sampled_from(["whole", "every second", "reversed"]),
    st.booleans(),
)
def test_an_array_arrives_as_from_any_pickle_writable_or_not(
    dtype: Any, shape: tuple[int, ...], order: Any, part: str, read_only: bool
) -> None:
    count = int(np.prod(shape, dtype=int))
    data = np.random.default_rng(count).bytes(count * np.dtype(dtype).itemsize)
    array = np.frombuffer(data, dtype).reshape(shape, order=order).copy(order=order)
    if shape and part != "whole":
        array = array[::2] if part == "every second" else array[::-1]
    array.flags.writeable = not read_only
    again = through([array, {"again": array}])
    expected = pickle.loads(pickle.dumps(array, protocol=5))
    assert again[0].dtype == expected.dtype
    assert again[0].shape == array.shape
    assert again[0].tobytes() == expected.tobytes()
    assert again[0].flags.writeable == expected.flags.writeable
    assert again[0].flags.aligned
    assert again[1]["again"] is again[0], "one array stays one array"


def test_large_buffers_are_not_copied_when_they_are_taken_out() -> None:
    array, data = np.zeros(LARGE), b"x" * LARGE
    pickled = encode((array, data))
    assert isinstance(pickled, Pickled)
    assert np.shares_memory(np.frombuffer(pickled.buffers[0], np.uint8), array)
    assert any(piece is data for piece in pickled.pieces)
    assert sum(map(len, pickled.pieces)) < len(data) + 500


def test_what_is_not_large_is_one_piece_of_bytes() -> None:
    assert isinstance(encode((np.zeros(100), b"x" * (LARGE - 2000))), bytes)


def test_a_value_is_not_held_after_it_was_taken_apart() -> None:
    array = np.zeros(LARGE)
    before = sys.getrefcount(array)
    assert before == sys.getrefcount(array)
    for _ in range(3):
        pack_in(SegmentPool(), [array])
        with pytest.raises(TypeError):
            encode([array, threading.Lock()])
    assert sys.getrefcount(array) == before, "without a garbage collection"


def test_many_small_arrays_travel_too() -> None:
    arrays = [np.full(1000, number) for number in range(500)]
    assert all(np.array_equal(one, other) for one, other in zip(arrays, through(arrays), strict=True))


def test_a_data_frame_comes_back_equal() -> None:
    frame = pd.DataFrame({"number": np.arange(50_000), "half": np.arange(50_000) / 2, "text": ["a", "b"] * 25_000})
    pd.testing.assert_frame_equal(through(frame), frame)


@pytest.mark.parametrize("form", ["B", "d", "i"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_memoryview_stays_one(form: str, size: int) -> None:
    view = np.arange(size, dtype=form).data
    again = through({"view": view})["view"]
    assert isinstance(again, memoryview)
    assert (again.format, again.shape, again.tobytes()) == (view.format, view.shape, view.tobytes())
    assert not again.readonly
    assert through(memoryview(b"r" * size)).readonly


def test_a_strided_memoryview_arrives_whole() -> None:
    view = np.arange(100_000, dtype="i4").reshape(1000, 100)[:, ::2].data
    assert through(view).tolist() == view.tolist()


def test_arrow_tables_leave_their_buffers_outside() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"number": np.arange(100_000), "text": ["a", "bc"] * 50_000})
    pickled = encode(table)
    assert isinstance(pickled, Pickled)
    assert len(pickled.buffers) >= 2
    assert through(table).equals(table)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", "bool", "complex64"])
def test_tensors_leave_their_storage_outside(name: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.randn(400, 500).to(getattr(torch, name))
    pickled = encode([tensor])
    assert isinstance(pickled, Pickled)
    assert len(pickled.buffers) == 1
    again = through(tensor)
    assert again.dtype == tensor.dtype
    assert torch.equal(again, tensor)
    again[0, 0] = 0
    assert torch.equal(through(tensor[:, ::2]), tensor[:, ::2])


@pytest.mark.torch
def test_parameters_and_what_needs_a_gradient_keep_that() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.randn(300, 300))
    again = through({"weight": parameter, "plain": torch.ones(300, 300, requires_grad=True), "few": torch.ones(3)})
    assert isinstance(again["weight"], torch.nn.Parameter)
    assert torch.equal(again["weight"], parameter)
    assert again["plain"].requires_grad
    assert torch.equal(again["few"], torch.ones(3))


def test_an_object_of_main_beside_a_large_array_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    exec("class Point:\n    def __init__(self, x): self.x = x\n", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    pickled = encode((np.zeros(LARGE), main.Point(3), b"__main__" * LARGE))
    assert isinstance(pickled, Pickled)
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    array, point, _ = pickle.loads(b"".join(pickled.pieces), buffers=pickled.buffers)
    assert (array.size, point.x) == (LARGE, 3)


def test_large_data_that_names_main_is_no_reason_to_pickle_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudpickle, "Pickler", None)
    data = b"__main__" * LARGE
    assert through(data) == data


def test_closures_may_hold_large_arrays() -> None:
    array = np.arange(LARGE)
    pickled = encode(lambda: array.sum() + 1)
    assert isinstance(pickled, Pickled)
    assert len(pickled.buffers) == 1
    assert pickle.loads(b"".join(pickled.pieces), buffers=pickled.buffers)() == array.sum() + 1


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_parts_of_a_block_are_aligned_and_do_not_overlap(parts: list[int]) -> None:
    starts = starts_of(parts)
    assert all(start % ALIGNMENT_BYTES == 0 for start in starts)
    assert all(a + size <= b for a, size, b in zip(starts, parts, starts[1:], strict=False))
    assert end_of(parts) == starts[-1] + parts[-1]
