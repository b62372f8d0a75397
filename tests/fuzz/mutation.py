"""Inputs made of good ones: pieces put together, cut, and spoilt in a few places."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

MAX_PIECES = 8


class Input(NamedTuple):
    """Bytes, and where they are cut when they arrive."""

    data: bytes
    cuts: tuple[int, ...] = ()

    @property
    def pieces(self) -> list[bytes]:
        """Return the data as it arrives."""
        places = sorted({0, *(each for each in self.cuts if each < len(self.data)), len(self.data)})
        return [self.data[start:end] for start, end in pairwise(places)]


@st.composite
def inputs(draw: st.DrawFn, good: Sequence[bytes], words: Sequence[bytes]) -> Input:
    """Draw an input.

    Args:
        draw: Given by hypothesis.
        good: What is put together.
        words: What is put where it does not belong.
    """
    data = b"".join(draw(st.lists(st.sampled_from(good), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        word = draw(st.sampled_from(words) | st.binary(max_size=2))
        data = data[:place] + word + data[place + draw(st.integers(0, 4)) :]
    cuts = draw(st.lists(st.integers(1, max(1, len(data))), max_size=MAX_PIECES))
    return Input(data, tuple(cuts))
