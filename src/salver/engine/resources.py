"""Counting a node's resources: pure bookkeeping, no process in sight.

GPUs are handed out by index. A fraction of a GPU is packed on the fullest GPU that still has room, so that whole ones
stay whole; whole GPUs are taken from those nobody uses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from salver.engine.base import CPU, GPU, readable
from salver.schema.errors import ResourcesUnavailable

# Amounts are counted in whole ten-thousandths: sums of fractions like 0.1 must be what people mean by them.
_UNIT = 10_000


@dataclass(frozen=True)
class Grant:
    """Resources given to one process: amounts by name, and the GPUs behind them."""

    amounts: Mapping[str, float]
    gpus: Mapping[int, float] = field(default_factory=dict)


class Ledger:
    """What a node has and who holds it.

    Args:
        total: Amounts by name.
        strict_cpus: Refuse more CPUs than there are; otherwise they may be over-committed.
    """

    def __init__(self, total: Mapping[str, float], *, strict_cpus: bool = False) -> None:
        self.total = dict(total)
        self._strict_cpus = strict_cpus
        self._grants: dict[str, Grant] = {}
        self._free = {name: _units_in(amount) for name, amount in total.items()}
        self._gpu_free = dict.fromkeys(range(int(total.get(GPU, 0))), _UNIT)

    @property
    def free(self) -> dict[str, float]:
        """Return what is left; CPUs may be negative where they are over-committed."""
        return {name: units / _UNIT for name, units in self._free.items()}

    @property
    def cpus_overcommitted(self) -> bool:
        """Say whether more CPUs are promised than there are."""
        return self._free.get(CPU, 0) < 0

    def take(self, holder: str, wanted: Mapping[str, float]) -> Grant:
        """Give resources to a holder, who has none yet.

        Raises:
            ResourcesUnavailable: Something is not free; nothing was taken.
        """
        if holder in self._grants:
            raise ValueError(f"{holder} holds resources already")
        wanted = {name: amount for name, amount in wanted.items() if amount > 0}
        for name, amount in wanted.items():
            if (name != CPU or self._strict_cpus) and _units_of(amount) > self._free.get(name, 0):
                raise ResourcesUnavailable(
                    f"{holder} needs {readable(wanted)}, and {name} is short: "
                    f"{self._free.get(name, 0) / _UNIT:g} of {self.total.get(name, 0.0):g} free."
                )
        grant = Grant(wanted, self._choose_gpus(holder, wanted.get(GPU, 0.0)))
        self._grants[holder] = grant
        self._count(grant, -1)
        return grant

    def give_back(self, holder: str) -> None:
        """Free what a holder has; an unknown holder is no error."""
        grant = self._grants.pop(holder, None)
        if grant is not None:
            self._count(grant, 1)

    def _count(self, grant: Grant, sign: int) -> None:
        for name, amount in grant.amounts.items():
            self._free[name] = self._free.get(name, 0) + sign * _units_of(amount)
        for index, share in grant.gpus.items():
            self._gpu_free[index] += sign * _units_of(share)

    def _choose_gpus(self, holder: str, amount: float) -> dict[int, float]:
        if amount == 0:
            return {}
        if amount < 1:
            # The fullest that fits; the lowest index among equals.
            fitting = [(left, index) for index, left in self._gpu_free.items() if left >= _units_of(amount)]
            if fitting:
                return {min(fitting)[1]: amount}
        elif amount == int(amount):
            whole = [index for index, left in self._gpu_free.items() if left == _UNIT]
            if len(whole) >= amount:
                return dict.fromkeys(whole[: int(amount)], 1.0)
        else:
            raise ResourcesUnavailable(f"{holder} needs {amount:g} GPUs; above 1 only whole GPUs can be given.")
        raise ResourcesUnavailable(
            f"{holder} needs {amount:g} GPU, and no GPU has that share free (shares of others are in the way)."
        )


def _units_of(amount: float) -> int:
    # What is asked for is rounded up, and what there is down: crumbs must not add up to more than there is.
    return math.ceil(round(amount * _UNIT, 3))


def _units_in(total: float) -> int:
    return math.floor(round(total * _UNIT, 3))
