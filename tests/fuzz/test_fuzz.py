"""A short run of all fuzzers, and everything that was found before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.cases import TABLE
from tests.fuzz import corpus, http_requests
from tests.fuzz.mutation import Input
from tests.fuzz.targets import TARGETS

KNOWN = [(name, target, case) for name in TARGETS for target, case in corpus.load(name).items()]


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=400)
@given(data=st.data())
def test_nothing_new_is_found(name: str, data: st.DataObject) -> None:
    TARGETS[name].check(data.draw(TARGETS[name].cases))


@pytest.mark.parametrize(("name", "title", "case"), KNOWN, ids=[f"{name}-{title}" for name, title, _ in KNOWN])
def test_what_was_found_before_is_no_longer_wrong(name: str, title: str, case: Input) -> None:
    TARGETS[name].check(case)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_a_corpus(name: str) -> None:
    assert corpus.load(name)


@pytest.mark.parametrize("data", [case.data for case in TABLE.values()], ids=[name[:60] for name in TABLE])
def test_another_parser_sees_the_same_in_what_hostile_clients_send(data: bytes) -> None:
    http_requests.check(Input(data))
