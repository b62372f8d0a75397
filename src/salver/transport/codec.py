"""Python values to bytes and back: pickle protocol 5, by value (cloudpickle) only where there is no import path.

`encode` takes large buffers out of the pickle, and does not copy large `bytes` into it, so that whoever sends the value
copies each byte once.
"""

import copyreg
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import cloudpickle

LARGE_SIZE_BYTES: Final = 64 * 1024
"""A buffer of this size leaves the pickle; a pickle of this size is no longer one piece of bytes."""

_MAX_FRAME_SIZE_BYTES = 3 * LARGE_SIZE_BYTES
"""What the pickler writes in one piece is shorter, or it is the text or bytes of a single large object."""

_GLOBAL = pickle.STACK_GLOBAL
"""A class or a function; to look for a single byte first takes a tenth of the time, and text has none such."""

Reducer = Callable[[Any], Any]

_modules = sys.modules


class Pickled(NamedTuple):
    """A large pickled value; it still shares memory with the value.

    Attributes:
        pieces: The pickle, in order.
        buffers: What was left out of it, in order.
    """

    pieces: list[bytes]
    buffers: list[memoryview]


def encode(value: Any) -> bytes | Pickled:
    """Pickle a value; classes and functions of `__main__`, closures and lambdas travel by value.

    Raises:
        Exception: Whatever pickling raised; `pickle.PicklingError` and `TypeError` mostly.
    """
    try:
        pickling = _idle.pop()
    except IndexError:
        pickling = _Pickling()
    if len(copyreg.dispatch_table) != _reducers.num_registered or ("torch" in _modules) != _reducers.with_torch:
        _reducers.renew()
    pickler = pickling.pickler
    pickler.dispatch_table = _reducers.table
    try:
        pickler.dump(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _encode_by_value(value)
    pickler.clear_memo()
    pieces = pickling.pieces
    if len(pieces) == 1 and len(pieces[0]) < LARGE_SIZE_BYTES and not pickling.buffers:
        data = pieces.pop()
        _idle.append(pickling)
        return _encode_by_value(value) if _GLOBAL in data and b"__main__" in data else data
    # A class of __main__ pickles as a reference that no other process can follow.
    if any(len(piece) <= _MAX_FRAME_SIZE_BYTES and b"__main__" in piece for piece in pieces):
        return _encode_by_value(value)
    return Pickled(pieces, pickling.buffers)


def dumps(value: Any) -> bytes:
    """Pickle a value into one piece, as `encode` does.

    Raises:
        Exception: Whatever pickling raised; `pickle.PicklingError` and `TypeError` mostly.
    """
    try:
        data = pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _dumps_by_value(value)
    return _dumps_by_value(value) if b"__main__" in data else data


def loads(data: bytes | memoryview, buffers: Sequence[memoryview] = ()) -> Any:
    """Unpickle bytes of a peer that was authenticated: a Unix socket in our own directory, or a known secret."""
    return pickle.loads(data, buffers=buffers)


def _dumps_by_value(value: Any) -> bytes:
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


class _Pickling:
    """A pickler that is used again and again, which is quicker than a new one, and what it has written."""

    __slots__ = ("buffers", "pickler", "pieces")

    def __init__(self, kind: Any = pickle.Pickler) -> None:
        self.pieces: list[bytes] = []
        self.buffers: list[memoryview] = []
        # Large bytes are given to `write` as they are, not copied.
        file = SimpleNamespace(write=self.pieces.append)
        # Not a method: a cycle would keep what was pickled until the next garbage collection.
        self.pickler = kind(file, protocol=5, buffer_callback=partial(_keep_in, self.buffers))


def _keep_in(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Say whether a buffer stays in the pickle; one that does not is kept here."""
    try:
        view = buffer.raw()
    except BufferError:
        return True
    if view.nbytes < LARGE_SIZE_BYTES:
        return True
    buffers.append(view)
    return False


_idle: list[_Pickling] = []


def _encode_by_value(value: Any) -> bytes | Pickled:
    pickling = _Pickling(cloudpickle.Pickler)
    pickling.pickler.dispatch_table = ChainMap(_own_reducers(), cloudpickle.Pickler.dispatch_table)
    pickling.pickler.dump(value)
    pieces = pickling.pieces
    if len(pieces) == 1 and not pickling.buffers and len(pieces[0]) < LARGE_SIZE_BYTES:
        return pieces[0]
    return Pickled(pieces, pickling.buffers)


class _Reducers:
    """How types are taken apart: what the process has registered with `copyreg`, and our own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Look again."""
        self.num_registered = len(copyreg.dispatch_table)
        # A module that is still being imported may lack it.
        self.with_torch = hasattr(_modules.get("torch"), "Tensor")
        self.table: dict[type, Reducer] = {**copyreg.dispatch_table, **_own_reducers()}


def _own_reducers() -> dict[type, Reducer]:
    table: dict[type, Reducer] = {memoryview: _take_memoryview_apart}
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is not None:
        table[tensor] = _take_tensor_apart
    return table


def _take_memoryview_apart(view: memoryview) -> tuple[Any, ...]:
    octets: Any = pickle.PickleBuffer(view if view.c_contiguous else view.tobytes())
    return _make_memoryview, (octets, view.format, view.shape)


def _make_memoryview(buffer: Any, form: Any, shape: tuple[int, ...]) -> Any:
    octets = memoryview(buffer).cast("B")
    return octets if form == "B" and len(shape) == 1 else octets.cast(form, shape)


def _take_tensor_apart(tensor: Any) -> tuple[Any, ...]:
    """Take a PyTorch tensor apart without a copy; by itself it would write its storage into the pickle."""
    torch = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or vars(tensor) or tensor.is_conj() or tensor.is_neg() or tensor.nbytes < LARGE_SIZE_BYTES:
        reduced: tuple[Any, ...] = tensor.__reduce_ex__(5)
        return reduced
    octets = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _make_tensor, (pickle.PickleBuffer(octets), tensor.dtype, tuple(tensor.shape), tensor.requires_grad)


def _make_tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch  # noqa: PLC0415 - only who was sent a tensor has it

    tensor = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).reshape(shape)
    return tensor.requires_grad_(requires_grad)


_reducers = _Reducers()
