"""What is to be reached, as data: ratios within one run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A ratio of two medians over the rounds of one group.

    Attributes:
        workload: Key of the workload.
        against: The system in the denominator; a peer's name means the rounds that the peer took part in.
        at_least: What must be reached: a lower bound of rates, an upper bound of latencies.
        moonshot: What would be remarkable.
        system: The system in the numerator.
        metric: Field of `Sample` in the numerator.
        of: Field of `Sample` in the denominator; the same unless given.
    """

    workload: str
    against: str
    at_least: float
    moonshot: float | None = None
    system: str = "salver"
    metric: str = "rate"
    of: str = ""

    @property
    def lower_is_better(self) -> bool:
        """Tell whether the bounds are upper ones."""
        return self.metric != "rate"

    def meets(self, ratio: float, bound: float) -> bool:
        """Tell whether a ratio is on the right side of a bound."""
        return ratio <= bound if self.lower_is_better else ratio >= bound


TWO = "salver, 2 replicas"
GOALS = (
    Goal("noop", "uvicorn", 0.8, 1.2),
    Goal("noop", "ray-tuned", 5),
    Goal("noop", "ray", 60),
    Goal("noop_c1", "uvicorn", 1.6, 1.3, metric="p50_us"),
    Goal("noop_c1", "salver", 10, metric="p99_us", of="p50_us"),
    Goal("fastapi", "uvicorn", 1.2, 1.5),
    Goal("fastapi", "uvicorn", 1.8, 2.3, system=TWO),
    Goal("fastapi", "ray-tuned", 2.8),
    Goal("plain", "salver, async def", 0.5, 0.7),
    Goal("chain", "ray-tuned", 10, 15),
    Goal("sse", "uvicorn", 1.5, 2),
    Goal("sse_chain", "salver, one deployment", 0.35, 0.5),
    Goal("handle", "grpc.aio", 10, 20),
    Goal("handle_c1", "grpc.aio", 4, 5),
    Goal("idle", "salver, alone", 0.95),
    Goal("apps64", "salver", 0.95, system="salver, 64"),
    Goal("routes200", "salver", 0.95, system="salver, 200"),
)
