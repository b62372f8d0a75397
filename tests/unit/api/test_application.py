"""Applications: opaque nodes of a graph."""

import salver as serve
from salver.api.application import Application, parts_of


@serve.deployment
class Leaf:
    """Has no arguments."""


@serve.deployment
class Root:
    """Calls others."""

    def __init__(self, *others: object) -> None:
        self.others = others


def test_an_application_names_its_ingress() -> None:
    assert repr(Root.bind(Leaf.bind())) == "Application(ingress=Root)"


def test_an_application_says_what_it_binds() -> None:
    leaf = Leaf.bind()
    assert parts_of(Root.bind(leaf, 1)) == (Root, (leaf, 1), {})


def test_options_that_are_set_after_a_bind_do_not_touch_it() -> None:
    bound = Leaf.bind()
    Leaf.options(name="other", num_replicas=4)
    assert parts_of(bound)[0].name == "Leaf"


def test_applications_can_be_keys_and_members_of_sets() -> None:
    leaf, other = Leaf.bind(), Leaf.bind()
    assert {leaf: 1, other: 2}[leaf] == 1
    assert len({leaf, other, leaf}) == 2


def test_nothing_can_be_added_to_an_application() -> None:
    assert not hasattr(Leaf.bind(), "__dict__")
    assert isinstance(Leaf.bind(), Application)
