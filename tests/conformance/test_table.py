"""Every case of the table, in one piece and a few bytes at a time: the right answers, and nothing smuggled."""

import pytest

from tests.conformance.cases import TABLE, Case
from tests.conformance.target import Target

ids = [name[:60] for name in TABLE]
MAX_PIECES = 400


def check(target: Target, case: Case, *pieces: bytes) -> None:
    """Send pieces and assert that all is as the case says."""
    target.look()
    with target.peer() as peer:
        peer.send(*pieces)
        statuses = tuple(peer.answer().status for _ in case.statuses)
        if case.ends:
            assert (statuses, peer.rest()) == (case.statuses, b"")
        else:
            assert statuses == case.statuses
            # What it says next is understood: nothing of the case was left over.
            peer.send(b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (peer.answer().body, peer.rest()) == (b"/after", b"")
    record = target.look()
    whole = record.whole if case.ends else record.whole[:-1]
    assert tuple(whole) == case.seen
    target.check_unharmed()


@pytest.mark.parametrize("case", TABLE.values(), ids=ids)
def test_bytes_in_one_piece(target: Target, case: Case) -> None:
    check(target, case, case.data)


@pytest.mark.parametrize("case", TABLE.values(), ids=ids)
def test_the_same_bytes_in_small_pieces(target: Target, case: Case) -> None:
    size = 1 + len(case.data) // MAX_PIECES
    check(target, case, *(case.data[start : start + size] for start in range(0, len(case.data), size)))
