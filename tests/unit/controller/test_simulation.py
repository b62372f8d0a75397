"""Whatever is wished and whatever happens: a deployment in a small world, moved about at random."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from salver.controller.lifecycle import Stage
from salver.controller.observed import Observed, Replica
from salver.controller.rollout import gave_up, surge
from salver.controller.status import Standing, next_standing
from salver.lib.restarts import MAX_RESTART_DELAY_S, QUICK_DEATH_S
from salver.schema.status import DeploymentStatus
from tests.unit.controller.scene import Scene, wish

MAX_REPLICAS = 4
LEAVING = (Stage.DRAINING, Stage.STOPPING, Stage.KILLED)
names = st.integers(0, 10)


class Deployment(RuleBasedStateMachine):
    """One deployment on a machine with room for some replicas.

    Its processes start, are refused, fail, crash, drain, hang and leave late, in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.room = MAX_REPLICAS
        self.placed: set[str] = set()
        self.versions = 0
        self.floor = 0
        self.was_refused = False

    @initialize(replicas=st.integers(1, MAX_REPLICAS), spare=st.integers(0, 2))
    def begin(self, replicas: int, spare: int) -> None:
        self.room = replicas + spare
        self.deploy(replicas, 0.2)
        self.start_well()

    # Wishes

    @rule(replicas=st.integers(1, MAX_REPLICAS), share=st.sampled_from([0.2, 0.5, 1.0]))
    def deploy(self, replicas: int, share: float) -> None:
        self.versions += 1
        self.scene.want(wish(min(replicas, self.room), f"v{self.versions}", rolling_update_percentage=share))
        self.floor, self.was_refused = len(self.scene.serving()), False
        self.look()

    @precondition(lambda self: self.scene.wish is not None)
    @rule(replicas=st.integers(0, MAX_REPLICAS))
    def scale(self, replicas: int) -> None:
        assert self.scene.wish is not None
        self.scene.want(replace(self.scene.wish, replicas=min(replicas, self.room)))
        self.look()

    @precondition(lambda self: self.scene.wish is not None and self.versions > 1)
    @rule()
    def delete(self) -> None:
        self.scene.want(None)
        self.look()

    # The world

    @precondition(lambda self: self._unplaced())
    @rule(which=names)
    def place(self, which: int) -> None:
        self._place(*self._pick(which, self._unplaced()))
        self.look()

    @precondition(lambda self: self._born())
    @rule(which=names)
    def become_ready(self, which: int) -> None:
        self.scene.ready(*self._pick(which, self._born()))
        self.look()

    @precondition(lambda self: self._in(Stage.STARTING))
    @rule()
    def start_well(self) -> None:
        self._place(*self._unplaced())
        self.scene.ready(*self._born())
        self.look()

    @precondition(lambda self: self._in(Stage.STARTING))
    @rule(which=names)
    def fail_to_start(self, which: int) -> None:
        for name in self._pick(which, self._in(Stage.STARTING)):
            self._exit(name, failed=True)
        self.look()

    @precondition(lambda self: self._in(*Stage))
    @rule(which=names)
    def crash(self, which: int) -> None:
        for name in self._pick(which, self._in(*Stage)):
            self.floor -= name in self.scene.serving()
            self._exit(name)
        self.look()

    @precondition(lambda self: self._born())
    @rule(which=names)
    def ask_for_its_rank(self, which: int) -> None:
        self.scene.joined(*self._pick(which, self._born()))
        self.look()

    @precondition(lambda self: self._in(Stage.STARTING, Stage.RUNNING))
    @rule(which=names, failures=st.integers(0, 4), loop_held_s=st.sampled_from([0.0, 0.0, 30.0, 1000.0]))
    def tell_how_it_fares(self, which: int, failures: int, loop_held_s: float) -> None:
        for name in self._pick(which, self._in(Stage.STARTING, Stage.RUNNING)):
            self.scene.hear(name, failures=failures, reason="ill", loop_held_s=loop_held_s)
        self.look()

    @precondition(lambda self: self._in(Stage.DRAINING))
    @rule(which=names)
    def drain(self, which: int) -> None:
        self.scene.drained(*self._pick(which, self._in(Stage.DRAINING)))
        self.look()

    @precondition(lambda self: self._in(*LEAVING))
    @rule(which=names)
    def leave(self, which: int) -> None:
        for name in self._pick(which, self._in(*LEAVING)):
            self._exit(name)
        self.look()

    @rule(seconds=st.sampled_from([0.05, 1.0, QUICK_DEATH_S, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.look(after_s=seconds)

    def look(self, after_s: float = 0.0) -> None:
        scene = self.scene
        live = len(self._in(Stage.STARTING, Stage.RUNNING))
        self.floor -= sum(each.startswith("retire") for each in scene.look(after_s))
        if scene.wish is None:
            return
        # Where resources forbid one more, one old replica at a time makes room.
        self.floor = min(scene.wish.replicas, max(self.floor, len(scene.serving())))
        assert len(scene.serving()) >= self.floor - self.was_refused
        assert len(self._in(Stage.STARTING, Stage.RUNNING)) <= max(live, scene.wish.replicas + surge(scene.wish))

    # What holds at all times

    @invariant()
    def nothing_is_left_to_decide(self) -> None:
        assert self.scene.plan().commands == []

    @invariant()
    def whoever_leaves_has_a_deadline(self) -> None:
        for each in self.scene.view.in_stage(Stage.DRAINING, Stage.STOPPING):
            assert each.kill_at is not None
            assert each.kill_at > self.scene.now
            due = self.scene.plan().look_again_at
            assert due is not None
            assert due <= each.kill_at

    @invariant()
    def whoever_is_missing_is_on_the_way_or_has_a_reason(self) -> None:
        scene, wanted = self.scene, self.scene.wish
        if wanted is None or len(self._in(Stage.STARTING, Stage.RUNNING)) >= wanted.replicas:
            return
        reason = scene.view.no_room is not None or scene.view.restart_at > scene.now or gave_up(wanted, scene.view)
        few_attempts_left = bool(scene.view.failures and self._in(Stage.STARTING))
        assert reason or few_attempts_left

    @invariant()
    def the_status_is_healthy_exactly_when_all_is_as_wanted(self) -> None:
        scene, wanted = self.scene, self.scene.wish
        status = next_standing(Standing(), wanted, scene.view, scene.now).status
        replicas = list(scene.view.replicas.values())
        as_wanted = wanted is not None and len(replicas) == wanted.replicas and all(map(self._is_wanted, replicas))
        few_failures = wanted is not None and scene.view.failures < wanted.max_startup_failures
        assert (status is DeploymentStatus.HEALTHY) == (as_wanted and few_failures)

    @invariant()
    def ranks_are_unique_and_dense_where_all_is_as_wanted(self) -> None:
        scene, wanted = self.scene, self.scene.wish
        replicas = list(scene.view.replicas.values())
        ranks = sorted(each.rank.rank for each in replicas)
        assert len(set(ranks)) == len(ranks)
        at_rest = wanted is not None and len(replicas) == wanted.replicas
        if at_rest and all(each.stage is Stage.RUNNING and each.listens for each in replicas):
            assert ranks == list(range(len(ranks)))
            assert all(each.told_rank == (each.rank, len(ranks)) for each in replicas)

    def teardown(self) -> None:
        self._replay()
        self._settle()
        wanted, view = self.scene.wish, self.scene.view
        if wanted is None:
            assert view.replicas == {}
        elif not gave_up(wanted, view):
            assert len(view.replicas) == wanted.replicas
            assert all(map(self._is_wanted, view.replicas.values()))

    def _replay(self) -> None:
        again = Observed()
        for event, now in self.scene.history:
            again.apply(event, now)
        assert again.deployments == self.scene.observed.deployments

    def _settle(self) -> None:
        """Let all go well from now on, for as long as something happens."""
        for _ in range(50):
            self.start_well()
            self.scene.hear(*self._in(Stage.RUNNING))
            for name in self._in(*LEAVING):
                self._exit(name)
            self.look(after_s=MAX_RESTART_DELAY_S)

    def _place(self, *starting: str) -> None:
        for name in starting:
            if len(self.placed) < self.room:
                self.placed.add(name)
                self.scene.placed(name)
            else:
                self.scene.refuse(name)
                self.was_refused = True

    def _exit(self, name: str, *, failed: bool = False) -> None:
        self.placed.discard(name)
        if failed:
            self.scene.fail(name)
        else:
            self.scene.exit(name)

    def _in(self, *stages: Stage) -> list[str]:
        return [each.id.unique_id for each in self.scene.view.in_stage(*stages)]

    def _unplaced(self) -> list[str]:
        return [name for name in self._in(*Stage) if name not in self.placed]

    def _born(self) -> list[str]:
        return [name for name in self._in(Stage.STARTING) if name in self.placed]

    def _is_wanted(self, replica: Replica) -> bool:
        wanted = self.scene.wish
        return wanted is not None and replica.stage is Stage.RUNNING and replica.version == wanted.version

    @staticmethod
    def _pick(which: int, of: list[str]) -> list[str]:
        return [of[which % len(of)]] if of else []


TestDeployment: Any = Deployment.TestCase
TestDeployment.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
