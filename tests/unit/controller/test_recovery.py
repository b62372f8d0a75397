"""What a new controller decides about replicas of an earlier one's time."""

from salver.controller.desired import Desired
from salver.controller.events import DrainBegan, ReplicaLaunched, WishChanged
from salver.controller.observed import ADOPTION_TIMEOUT_S
from salver.controller.publisher import Publisher
from salver.controller.snapshots import Snapshots
from salver.schema.ids import ReplicaID
from salver.schema.topics import replicas_topic
from tests.unit.controller.scene import ID, Scene, wish


def adopting(*replicas: tuple[str, str], wanted: int = 2, version: str = "v1") -> Scene:
    """Return a scene in which a new controller has found replicas, as pairs of name and version."""
    scene = Scene()
    for name, their_version in replicas:
        scene.happen(ReplicaLaunched(ReplicaID(name, ID), their_version, 20.0, 30.0, {"CPU": 1.0}, adopted=True))
        scene.placed(name)
    scene.want(wish(wanted, version))
    return scene


def test_nothing_is_decided_before_all_have_said_how_they_are() -> None:
    scene = adopting(("a", "v1"), ("b", "v1"))
    assert scene.look() == []
    scene.ready("a")
    assert scene.look(after_s=1) == []
    scene.ready("b")
    assert scene.look() == []
    assert scene.serving() == ["a", "b"]


def test_what_died_meanwhile_is_replaced_once_the_others_have_spoken() -> None:
    scene = adopting(("a", "v1"))
    assert scene.look() == []
    scene.ready("a")
    assert scene.look() == ["start r1"]


def test_an_update_goes_on_where_it_was() -> None:
    scene = adopting(("old1", "v1"), ("old2", "v1"), ("new1", "v2"), wanted=2, version="v2")
    scene.ready("old1", "old2", "new1")
    assert sorted(scene.look()) == ["drain old1", "start r1"]


def test_one_that_an_earlier_controller_told_to_drain_is_the_one_that_goes() -> None:
    scene = adopting(("a", "v1"), ("b", "v1"), ("c", "v1"), wanted=2)
    scene.ready("a", "b", "c")
    scene.happen(DrainBegan(ReplicaID("a", ID)))
    assert scene.look() == []
    assert scene.serving() == ["b", "c"]


def test_those_that_stay_silent_count_as_starting_after_a_while() -> None:
    scene = adopting(("a", "v1"))
    assert scene.plan().look_again_at == scene.now + ADOPTION_TIMEOUT_S
    assert scene.look(after_s=ADOPTION_TIMEOUT_S) == ["start r1"]
    scene.ready("a", "r1")
    assert scene.serving() == ["a", "r1"]


def test_one_whose_constructor_raised_meanwhile_counts_as_a_failure() -> None:
    scene = adopting(("a", "v1"), wanted=1)
    scene.fail("a")
    assert scene.view.failures == 1
    assert scene.look() == ["start r1"]


def test_what_is_not_wanted_any_more_is_let_go() -> None:
    scene = adopting(("a", "v1"))
    scene.want(None)
    assert scene.look() == []
    scene.ready("a")
    assert scene.look() == ["drain a"]


def test_callers_keep_what_they_know_until_the_new_controller_knows_better() -> None:
    scene = adopting(("a", "v1"), wanted=1)
    desired, snapshots = Desired(), Snapshots()
    assert scene.wish is not None
    desired.deploy(scene.wish.application, 1.0)
    publisher = Publisher(desired, scene.observed, snapshots)
    publisher.wish_changed({ID})
    assert publisher.holds_back(replicas_topic(ID))
    scene.ready("a")
    scene.happen(WishChanged(ID, "v1"))
    publisher.publish({ID}, scene.now)
    assert not publisher.holds_back(replicas_topic(ID))
