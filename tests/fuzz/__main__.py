"""The long run. What fails is written to tests/corpus, where the tests find it from then on."""

import argparse
import sys
import time

from hypothesis import HealthCheck, given, settings

from tests.fuzz import corpus
from tests.fuzz.mutation import Input
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 2000


def main() -> int:
    """Fuzz until the time is over, or one target fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="for all targets together")
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="only this one")
    arguments = parser.parse_args()
    chosen = {name: TARGETS[name] for name in arguments.target or TARGETS}
    end = time.monotonic() + 60 * arguments.minutes
    rounds = 0
    while time.monotonic() < end:
        for name, target in chosen.items():
            if not _survives(name, target):
                return 1
        rounds += 1
    print(f"{rounds} rounds of {EXAMPLES} examples for each of {', '.join(chosen)}: nothing found")
    return 0


def _survives(name: str, target: Target) -> bool:
    last = Input(b"")

    @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.cases)
    def fuzz(case: Input) -> None:
        nonlocal last
        last = case
        target.check(case)

    try:
        fuzz()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        # Hypothesis runs the smallest failing input last.
        print(f"{name}: {error!r}\n{last}\nis now in {corpus.save(name, last)}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
