"""Which application a path leads to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.proxy.routes import RouteTable
from salver.schema.ids import DeploymentID
from salver.schema.topics import Route, Routes
from tests.unit.proxy.doubles import routes

TABLE = RouteTable(routes(root="/", a="/a", ab="/a/b", c="/c"))


@pytest.mark.parametrize(
    ("path", "app"),
    [
        ("/", "root"),
        ("/x", "root"),
        ("/a", "a"),
        ("/a/", "a"),
        ("/a/x", "a"),
        ("/ab", "root"),
        ("/a/b", "ab"),
        ("/a/b/c", "ab"),
        ("/a/bc", "a"),
        ("/c/a/b", "c"),
        ("//a", "root"),
        ("", "root"),
        ("*", "root"),
        ("no slash", "root"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(path: str, app: str) -> None:
    match = TABLE.match(path)
    assert match is not None
    assert match.route.app_name == app


def test_a_path_that_nobody_has_leads_nowhere() -> None:
    assert RouteTable(routes(a="/a")).match("/b") is None
    assert RouteTable(Routes()).match("/") is None


@pytest.mark.parametrize(
    ("path", "app", "root_path"),
    [("/a/x", "a", "/a"), ("/a/b", "ab", "/a/b"), ("/x", "root", "")],
)
def test_an_application_sees_its_prefix_as_its_mount_point(path: str, app: str, root_path: str) -> None:
    match = TABLE.match(path)
    assert match is not None
    assert (match.route.app_name, match.root_path) == (app, root_path)


@pytest.mark.parametrize(
    ("path", "app", "root_path"),
    [
        ("/out", "root", "/out"),
        ("/out/", "root", "/out"),
        ("/out/a", "a", "/out/a"),
        ("/out/a/x", "a", "/out/a"),
        ("/outer/a", "root", "/out"),
        ("/a", "a", "/out/a"),
    ],
)
def test_the_prefix_of_a_proxy_in_front_is_taken_off_for_matching_and_put_on_the_mount_point(
    path: str, app: str, root_path: str
) -> None:
    for given_as in ("/out", "/out/"):
        match = RouteTable(routes(root="/", a="/a"), given_as).match(path)
        assert match is not None
        assert (match.route.app_name, match.root_path) == (app, root_path)


def test_applications_are_listed_by_prefix() -> None:
    assert RouteTable(routes(root="/", a="/a")).by_prefix == {"/": "root", "/a": "a"}


paths = st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=4).map(lambda parts: "/" + "/".join(parts))
prefixes = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(paths, st.sets(prefixes, max_size=6))
def test_it_agrees_with_the_rule_as_it_is_written(path: str, given_prefixes: set[str]) -> None:
    table = RouteTable(Routes(tuple(Route(each, each, DeploymentID(each)) for each in sorted(given_prefixes))))
    matching = [each for each in given_prefixes if each == "/" or path == each or path.startswith(each + "/")]
    match = table.match(path)
    assert (match.route.prefix if match else None) == max(matching, key=len, default=None)
