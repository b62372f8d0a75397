"""What is fuzzed: a strategy that makes inputs and a check that they must pass."""

from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

from tests.fuzz import frames, http2_frames, http_requests, response_heads
from tests.fuzz.mutation import Input


class Target(NamedTuple):
    """One parser."""

    cases: st.SearchStrategy[Input]
    check: Callable[[Input], None]


TARGETS = {
    "http": Target(http_requests.cases, http_requests.check),
    "http2": Target(http2_frames.cases, http2_frames.check),
    "frames": Target(frames.cases, frames.check),
    "heads": Target(response_heads.cases, response_heads.check),
}
