"""From request targets to those who answer them."""

from typing import cast

import pytest

from salver.proxy.places import NOT_A_TARGET
from tests.unit.proxy.doubles import FakeSite, StubRouter


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/", "/", "/", b""),
        (b"/a?x=1&y=%20", "/a", "/a", b"x=1&y=%20"),
        (b"/a?", "/a", "/a", b""),
        (b"/a??b", "/a", "/a", b"?b"),
        (b"/%61%20b", "/a b", "/%61%20b", b""),
        (b"/%C3%A4", "/ä", "/%C3%A4", b""),
        (b"/%ff", "/\ufffd", "/%ff", b""),
        (b"/%zz%", "/%zz%", "/%zz%", b""),
        (b"/a%3Fb?c", "/a?b", "/a%3Fb", b"c"),
        (b"/a#fragment?b", "/a", "/a", b""),
        (b"/a?b#fragment", "/a", "/a", b"b"),
        (b"*", "*", "*", b""),
        (b"http://host/a?b", "/a", "/a", b"b"),
        (b"http://host:80", "/", "/", b""),
        (b"https://user@host/%61", "/a", "/%61", b""),
    ],
)
def test_a_target_has_a_path_and_a_query(target: bytes, path: str, raw_path: str, query: bytes) -> None:
    for _ in range(2):  # the second time from what was kept
        place, found_query = (site := FakeSite()).places.find(target)
        assert (place.path, place.raw_path, found_query) == (path, raw_path, query)
        assert cast("StubRouter", place.router) is site.root


def test_the_decoded_path_decides_about_the_route() -> None:
    site = FakeSite()
    place, _ = site.places.find(b"/%61pp/x")
    assert (place.root_path, place.prefix) == ("/app", "/app")
    assert cast("StubRouter", place.router) is site.app


@pytest.mark.parametrize("target", [b"host:443", b"http://", b"http://host:port/", b"?", b""])
def test_what_is_no_path_has_no_place(target: bytes) -> None:
    place, _ = FakeSite().places.find(target)
    assert (place.outcome, place.router) == (NOT_A_TARGET, None)


def test_a_path_that_nobody_has_is_not_found() -> None:
    site = FakeSite()
    site.places.table._matches.clear()
    outcome = site.places.find(b"/%C3%A4")[0].outcome
    assert outcome is not None
    assert outcome.body.decode() == "Path '/ä' not found. Ping http://.../-/routes for available routes."


def test_only_so_many_places_are_kept() -> None:
    site = FakeSite()
    for number in range(10_000):
        site.places.find(b"/%d" % number)
    site.places.find(b"/" + b"x" * 10_000)
    assert len(site.places._cache) <= 4096
    assert max(map(len, site.places._cache)) < 1000
